"""Waiting for the database to come back, for steps that are safe to repeat."""

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
