"""Waiting: for the database to come back, and for tasks to end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import psycopg

from shared.store import database

Result = TypeVar("Result")

AGAIN_S, AGAIN_MAX_S = 0.1, 2.0
CANCEL_S = 0.5
CANCELS = 20


async def patiently(step: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat a step until the database takes it; errors of another kind are raised."""
    wait_s = AGAIN_S
    while True:
        try:
            return await step()
        except psycopg.Error as error:
            if not database.away(error):
                raise
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, AGAIN_MAX_S)


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
