"""How fast is too fast: the generic cell rate algorithm (GCRA, ITU-T I.371), without a clock.

All there is to remember of a caller is how far ahead of now the moment lies at which everything
that was spent will have been paid back: `ahead_s`, 0 for one who spent nothing lately.
"""

from typing import Final

import msgspec

WINDOW_S: Final = 60
_SLACK_S: Final = 1e-6  # sums of fractions are not exact


class Quota(msgspec.Struct, frozen=True):
    """So many units at once, which come back evenly over a minute. `name` is what clients read."""

    name: str
    amount: int

    @property
    def interval_s(self) -> float:
        """How long one unit takes to come back."""
        return WINDOW_S / self.amount


class Verdict(msgspec.Struct, frozen=True):
    """Whether so much may be spent now.

    `ahead_s` is what to remember; `remaining` units are left after it. `retry_s` is how long to
    wait where it may not be, 0 where it may.
    """

    admitted: bool
    ahead_s: float
    remaining: int
    retry_s: float


def spend(quota: Quota, ahead_s: float, cost: int) -> Verdict:
    """Judge a spending; one of more than the whole quota counts as the whole of it."""
    after_s = _after_s(quota, ahead_s, cost)
    admitted = _fits(after_s)
    kept_s = after_s if admitted else ahead_s
    # One more than divides out: what remains is what this very rule would admit, to the last bit.
    left = min(max(int((WINDOW_S - kept_s) / quota.interval_s) + 1, 0), quota.amount)
    while left and not _fits(_after_s(quota, kept_s, left)):
        left -= 1
    return Verdict(admitted, kept_s, left, 0.0 if admitted else after_s - WINDOW_S)


def _after_s(quota: Quota, ahead_s: float, cost: int) -> float:
    return ahead_s + min(cost, quota.amount) * quota.interval_s


def _fits(after_s: float) -> bool:
    return after_s <= WINDOW_S + _SLACK_S
