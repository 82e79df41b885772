"""Waiting for what other processes do: poll with a deadline instead of sleeping on a guess."""

import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.02

_T = TypeVar("_T")


def until(
    probe: Callable[[], _T | None],
    timeout_s: float = 20,
    *,
    otherwise: Callable[[], str] | None = None,
) -> _T:
    """Poll until the probe answers with something true, and return that.

    Fails when the time is up, with the last answer and what `otherwise` knows about it.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() >= deadline_s:
            known = otherwise() if otherwise else ""
            raise AssertionError(f"Still {answer!r} after {timeout_s:g} s.\n{known}")
        time.sleep(POLL_S)
