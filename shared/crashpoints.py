"""Named places at which a fault test may stop or kill the process.

In production `reach` is a function that does nothing: a crash point costs one call.
"""

import os
import signal
from collections.abc import Callable

NAMES = frozenset(
    {
        "after_insert",
        "before_commit",
        "after_commit",
        "after_notify",
        "after_claim",
        "before_intent",
        "after_intent",
        "after_send",
        "after_response",
        "before_finish_commit",
        "after_finish_commit",
        "after_delivery_claim",
        "after_delivery_200",
        "reaper_mid_batch",
        "sweeper_mid_batch",
        "rotate_mid",
    }
)

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_armed: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Say that the code has come to this place."""
    if _armed is not None:
        _armed(name)


def arm(spec: str) -> None:
    """Make one crash point effective: `before_intent:kill`, `after_claim:stop:3`.

    The optional number says at which visit it fires (1 where absent), once in the process's life.
    Raises `ValueError` for an unknown name or effect.
    """
    global _armed  # noqa: PLW0603 (armed once at start, so that disarmed code pays nothing)
    name, _, rest = spec.partition(":")
    effect, _, count = rest.partition(":")
    if name not in NAMES or effect not in _SIGNALS:
        raise ValueError(f"CRASH_POINT={spec!r} names no crash point and effect")
    left = int(count or 1)

    def fire(reached: str) -> None:
        nonlocal left
        if reached == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), _SIGNALS[effect])

    _armed = fire
