"""Steps that have to be carried through: repeated without the database, never cut short."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg

from shared.store import database

Result = TypeVar("Result")

AGAIN_S, AGAIN_MAX_S = 0.1, 2.0


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


async def uncancelled(work: Awaitable[Result]) -> Result:
    """Finish something that must not be cut short, however often the task is cancelled."""
    future = asyncio.ensure_future(work)
    while True:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.cancelled():
                raise
