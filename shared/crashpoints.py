"""Named places at which a fault test may stop or kill the process.

In production `reach` is a function that does nothing: a crash point costs one call.
"""

import os
import signal
import time
from collections.abc import Callable

NAMES = frozenset(
    {
        "before_commit",  # the batch of submissions is about to be sent; it commits by itself
        "after_commit",  # a submission is stored, its answer known, nobody has been told
        "after_notify",  # its worker was told, the client was not
        "after_claim",  # runs are ours in the database; nothing has been rendered
        "before_intent",
        "after_intent",  # the attempt is committed, not a byte of the call was sent
        "after_response",  # the provider's answer, or its failure, is in this process only
        "before_finish_commit",
        "after_finish_commit",  # the run is settled; ring and webhooks are still to come
        "after_delivery_claim",
        "after_delivery_200",  # the receiver has answered, whatever it said; nothing is recorded
        "reaper_mid_batch",  # runs were taken from the dead, not all of them rung
        "sweeper_mid_batch",  # runs were expired, and their successors not told
        "pruner_mid_batch",  # some contents are erased, or some runs deleted, not all that are due
        "tally_mid_batch",  # some calls are added up, not all that are due
        "environment_mid_batch",  # runs of a closed environment are canceled, nobody was told
        "rotate_mid_batch",  # some secrets are under the new master key, not all of them
        "recover_mid_batch",  # some of what a webhook missed is pending again, not all of it
    }
)
"""Each is one place in the code. Statements that write runs are transactions of their own, so there
is nothing between an insert and its commit; and a call is sent inside the vendor's SDK, so "after
the send" is when the provider has it: kill from outside."""

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_BLOCK = "block="
_armed: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Say that the code has come to this place."""
    if _armed is not None:
        _armed(name)


def arm(spec: str) -> None:
    """Make one crash point effective: `before_intent:kill`, `after_intent:block=2.5`.

    `block` stands still for so many seconds, and with it all that shares the event loop. A number
    behind, as in `after_claim:stop:3`, says at which visit it fires, once in the process's life.
    Raises `ValueError` for an unknown name or effect.
    """
    global _armed  # noqa: PLW0603 (armed once at start, so that disarmed code pays nothing)
    name, _, rest = spec.partition(":")
    effect, _, count = rest.partition(":")
    if name not in NAMES or not (effect in _SIGNALS or effect.startswith(_BLOCK)):
        raise ValueError(f"CRASH_POINT={spec!r} names no crash point and effect")
    block_s = 0.0 if effect in _SIGNALS else float(effect.removeprefix(_BLOCK))
    left = int(count or 1)

    def fire(reached: str) -> None:
        nonlocal left
        if reached == name:
            left -= 1
            if left == 0 and block_s:
                time.sleep(block_s)
            elif left == 0:
                os.kill(os.getpid(), _SIGNALS[effect])

    _armed = fire
