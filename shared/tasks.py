"""Ending tasks: for whoever starts some that never end by themselves."""

import asyncio
from collections.abc import Iterable

CANCEL_S = 0.5
CANCELS = 20


async def end(tasks: "Iterable[asyncio.Task[None]]") -> None:
    """Cancel tasks and wait until they have ended, at most ten seconds.

    Once is not enough: before Python 3.12 `wait_for`, in redis-py, may swallow a cancellation.
    """
    pending = {task for task in tasks if not task.done()}
    for _ in range(CANCELS):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_S)
