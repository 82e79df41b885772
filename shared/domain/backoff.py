"""How long to wait before the next try: of a provider call, and of a webhook delivery."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random

# 2 ** 1024 no longer fits a float; any cap is reached long before.
_MAX_DOUBLINGS = 64

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
# RFC 9110 §5.6.7: today's form, and the two that receivers must still accept.
_HTTP_DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")


def retry_wait_s(attempt: int, rng: Random, *, base_s: float = 2, cap_s: float = 60) -> float:
    """Wait after the given failed attempt (1, 2, …): full jitter, up to 2, 4, 8 … 60 s.

    Full jitter spreads what failed together evenly. Source: the AWS Architecture Blog,
    "Exponential Backoff And Jitter".
    """
    doublings = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
    return rng.uniform(0, min(cap_s, base_s * 2**doublings))


def told_wait_s(retry_after_s: float | None, wait_s: float, *, max_s: float = 3600) -> float:
    """Let a provider's `Retry-After` replace our own wait, up to a cap; `None` leaves ours."""
    if retry_after_s is None:
        return wait_s
    return min(max(retry_after_s, 0), max_s)


def webhook_wait_s(
    tries_made: int,
    schedule_s: Sequence[float],
    jitter: float,
    rng: Random,
    retry_after_s: float | None = None,
) -> float | None:
    """Wait before the next try of a delivery, `None` when the schedule is exhausted.

    The schedule's wait varies by ± `jitter`. A receiver's `Retry-After` can make it longer, up to
    an hour, never shorter.
    """
    if tries_made >= len(schedule_s):
        return None
    wait_s = schedule_s[tries_made] * rng.uniform(1 - jitter, 1 + jitter)
    if retry_after_s is None:
        return wait_s
    return max(wait_s, told_wait_s(retry_after_s, wait_s))


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a `Retry-After` header (RFC 9110 §10.2.3) as seconds from now, at least 0.

    Seconds may have a fraction, as some vendors send. Whatever else it holds, a negative
    number too, counts as absent: `None`.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    for form in _HTTP_DATES:
        try:
            moment = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        return max((moment - now).total_seconds(), 0.0)
    return None
