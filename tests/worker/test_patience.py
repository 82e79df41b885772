"""Waiting for the database, and for tasks that do not listen at once."""

import asyncio

import psycopg
import pytest

from shared.tasks import end
from worker.patience import patiently


async def test_a_step_is_repeated_until_the_database_takes_it() -> None:
    errors = [psycopg.OperationalError("the connection is lost")]

    async def step() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert "done" == await patiently(step)


async def test_an_error_of_another_kind_is_raised() -> None:
    async def step() -> None:
        raise psycopg.errors.CheckViolation("no")

    with pytest.raises(psycopg.errors.CheckViolation):
        await patiently(step)


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    swallowed: list[bool] = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append(True)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

    await end([task])

    assert task.cancelled()
    assert [True] == swallowed


async def test_what_has_ended_already_needs_no_waiting() -> None:
    async def failing() -> None:
        raise ValueError

    task = asyncio.create_task(failing())
    await asyncio.wait({task})

    await end([task])
    await end([])

    assert isinstance(task.exception(), ValueError)
