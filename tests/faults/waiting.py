"""Waiting for what must come true: the one way in which fault tests let time pass."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")

_PAUSE_S = 0.03


async def until(
    look: Callable[[], Awaitable[Found | None]], what: str, *, within_s: float = 15.0
) -> Found:
    """Look again and again; answers the first thing found that is true.

    Raises `AssertionError` naming `what` when the time is up.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + within_s
    while True:
        found = await look()
        if found:
            return found
        if loop.time() > ends_at:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(_PAUSE_S)


async def pause(seconds: float) -> None:
    """Let time pass where it is itself the matter: how long a fault lasts, how often one asks."""
    await asyncio.sleep(seconds)
