"""Doing without the database for a while: carry through what must be, put off the rest."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg

from shared.log import Spell
from shared.store import database
from worker.handler import NotNowError

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


@contextmanager
def put_off(spell: Spell) -> Iterator[None]:
    """Turn errors of a database that is away into `NotNowError`, and report when that changes."""
    try:
        yield
    except psycopg.Error as error:
        if not database.away(error):
            raise
        spell.failed(error)
        raise NotNowError from error
    spell.went_well()
