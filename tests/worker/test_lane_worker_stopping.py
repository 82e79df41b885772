"""Ending a worker, and ending one run: drain, abort, cancel."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.queue.lanes import Lanes
from shared.settings import Settings
from tests.worker.lane_rig import (
    NEVER_S,
    RecordingHandler,
    a_ring,
    fresh_lanes,  # noqa: F401 (a fixture)
    ids,
    until,
    working,
)
from worker.running import Stop, stop_reason


async def test_a_cancel_ends_the_run_it_names_and_says_that_a_user_wants_it(lanes: Lanes) -> None:
    handler = RecordingHandler(gate=asyncio.Event())
    rings = [a_ring() for _ in range(3)]

    async with working(lanes, handler) as worker:
        await lanes.ring_many(rings)
        await until(lambda: len(handler.started) == 3)
        await until(lambda: listened_to(lanes))
        await lanes.cancel(rings[1].run_id)
        await until(lambda: worker.counts().free == 1998)
        assert handler.stops == {rings[1].run_id: Stop.USER}

    assert handler.stops[rings[0].run_id] is Stop.SHUTDOWN


async def listened_to(lanes: Lanes) -> bool:
    ((_, count),) = await lanes.pubsub_numsub("rl:cancel")
    return bool(count)


async def test_a_cancel_of_what_does_not_run_here_changes_nothing(lanes: Lanes) -> None:
    handler = RecordingHandler(gate=asyncio.Event())

    async with working(lanes, handler) as worker:
        await lanes.ring(a_ring())
        await until(lambda: len(handler.started) == 1)
        assert not worker.cancel(RunId(new_id()))

        assert worker.counts().free == 1999


async def test_a_run_cancelled_before_its_first_step_can_still_give_itself_back(
    lanes: Lanes,
) -> None:
    handler = RecordingHandler(gate=asyncio.Event())
    ring = a_ring()

    async with working(lanes, handler) as worker:

        async def cancel_as_soon_as_taken(_: Sequence[RunId]) -> None:
            asyncio.get_running_loop().call_soon(worker.cancel, ring.run_id)

        handler.on_take = cancel_as_soon_as_taken
        await lanes.ring(ring)
        await until(lambda: len(handler.stops) == 1)

    assert handler.started == [ring.run_id]
    assert handler.stops == {ring.run_id: Stop.USER}


async def test_a_second_cancel_does_not_disturb_the_first(lanes: Lanes) -> None:
    handler = RecordingHandler()
    tidied = asyncio.Event()
    tidying = asyncio.Event()

    async def tidy_up(_: RunId) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            tidying.set()
            await tidied.wait()
            raise

    handler.on_run = tidy_up
    ring = a_ring()
    async with working(lanes, handler) as worker:
        await lanes.ring(ring)
        await until(lambda: len(handler.started) == 1)
        answers = [worker.cancel(ring.run_id)]
        await tidying.wait()
        answers.append(worker.cancel(ring.run_id))
        tidied.set()
        await until(lambda: worker.counts().free == 2000)

    assert answers == [True, True]
    assert handler.stops == {ring.run_id: Stop.USER}


async def test_the_reason_is_known_in_tasks_the_run_started(lanes: Lanes) -> None:
    handler = RecordingHandler()
    seen: list[Stop | None] = []

    async def wait_inside() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(stop_reason())

    async def call_a_provider(_: RunId) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_inside())

    handler.on_run = call_a_provider
    ring = a_ring()
    async with working(lanes, handler) as worker:
        await lanes.ring(ring)
        await until(lambda: len(handler.started) == 1)
        worker.cancel(ring.run_id)
        await until(lambda: len(seen) == 1)

    assert seen == [Stop.USER]
    assert stop_reason() is None


async def test_a_drain_waits_for_what_runs_and_claims_nothing_more(lanes: Lanes) -> None:
    handler = RecordingHandler(gate=asyncio.Event())

    async with working(lanes, handler) as worker:
        await lanes.ring(a_ring())
        await until(lambda: len(handler.started) == 1)
        draining = asyncio.create_task(worker.drain(10))
        await asyncio.wait([draining], timeout=0.05)
        await lanes.ring(a_ring())
        still_draining = not draining.done()
        assert handler.gate
        handler.gate.set()
        drained = await draining

    assert still_draining
    assert drained
    assert len(handler.ended) == 1
    assert (await lanes.waiting())[Lane.NORMAL] == 1


async def test_a_drain_that_takes_too_long_says_so_and_cancels_nobody(lanes: Lanes) -> None:
    handler = RecordingHandler(gate=asyncio.Event())

    async with working(lanes, handler) as worker:
        await lanes.ring(a_ring())
        await until(lambda: len(handler.started) == 1)
        drained = await worker.drain(0.05)
        assert handler.stops == {}

        aborted = await worker.abort_all()

    assert not drained
    assert aborted
    assert list(handler.stops.values()) == [Stop.SHUTDOWN]


async def test_an_abort_ends_batches_that_are_still_being_taken(lanes: Lanes) -> None:
    handler = RecordingHandler()

    async def never(_: Sequence[RunId]) -> None:
        await asyncio.Event().wait()

    handler.on_take = never
    async with working(lanes, handler) as worker:
        await lanes.ring(a_ring())
        await until(lambda: len(handler.takes) == 1)
        aborted = await worker.abort_all()

        assert worker.counts().free == 2000

    assert aborted
    assert handler.started == []


async def test_no_id_is_lost_when_workers_stop_in_the_middle_of_a_flood(lanes: Lanes) -> None:
    handler = RecordingHandler()
    rings = [a_ring(lane) for lane in Lane for _ in range(700)]

    async with working(lanes, handler, settings=Settings(slots=20, poll_s=NEVER_S)) as worker:
        await lanes.ring_many(rings)
        await until(lambda: len(handler.ended) > 100)
        assert await worker.drain(10)
    waiting = sum((await lanes.waiting()).values())
    assert len(handler.ended) + waiting == len(rings)

    async with working(lanes, handler):
        await until(lambda: len(handler.ended) == len(rings))

    assert ids(rings) == Counter(handler.ended)
