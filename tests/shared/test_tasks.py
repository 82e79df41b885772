"""Asking once for what many want at the same time."""

import asyncio

import pytest

from shared.tasks import SingleFlight


class _Source:
    """Something slow to ask, which counts how often it was."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def find(self) -> str:
        self.asked += 1
        return await asyncio.shield(self.answer)


async def _begun(flight: SingleFlight[str, str], source: _Source, key: str) -> "asyncio.Task[str]":
    task = asyncio.create_task(flight.get(key, source.find))
    await asyncio.sleep(0)
    return task


async def test_all_who_ask_at_once_get_the_answer_of_one() -> None:
    flight, source = SingleFlight[str, str](), _Source()
    asking = [await _begun(flight, source, key) for key in ("a", "a", "b", "a")]

    source.answer.set_result("found")

    assert ["found"] * 4 == await asyncio.gather(*asking)
    assert source.asked == 2


async def test_who_asks_later_asks_anew() -> None:
    flight, source = SingleFlight[str, str](), _Source()
    source.answer.set_result("found")

    for _ in range(3):
        await flight.get("a", source.find)
        await asyncio.sleep(0)

    assert source.asked == 3


async def test_an_error_reaches_all_and_is_not_remembered() -> None:
    flight, source = SingleFlight[str, str](), _Source()
    asking = [await _begun(flight, source, "a") for _ in range(2)]

    source.answer.set_exception(LookupError("away"))
    errors = await asyncio.gather(*asking, return_exceptions=True)
    source.answer = asyncio.get_running_loop().create_future()
    source.answer.set_result("found")

    assert [LookupError, LookupError] == [type(error) for error in errors]
    assert "found" == await flight.get("a", source.find)


async def test_who_stops_waiting_does_not_stop_the_others() -> None:
    flight, source = SingleFlight[str, str](), _Source()
    first, second = [await _begun(flight, source, "a") for _ in range(2)]

    first.cancel()
    source.answer.set_result("found")

    with pytest.raises(asyncio.CancelledError):
        await first
    assert ("found", 1) == (await second, source.asked)
