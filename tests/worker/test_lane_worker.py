"""The worker's claim loop on a real Valkey: starting what is rung, and nothing else."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from shared.domain.states import Lane
from shared.ids import RunId
from shared.queue.lanes import Lanes
from shared.queue.port import Ring
from shared.queue.slots import HANDFUL
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

MANY = Settings(slots=60, lane_floors=(0.1, 0.1, 0), poll_s=NEVER_S, gather_s=NEVER_S)
OF_LOW = 48
HANDFUL_OF_MANY = MANY.slots // HANDFUL
SMALL = Settings(slots=10, lane_floors=(0.2, 0.1, 0.1), poll_s=NEVER_S)


class EndedOneByOne(RecordingHandler):
    """Holds every run until `end_one` lets any of them end."""

    def __init__(self) -> None:
        super().__init__()
        self._ends = asyncio.Semaphore(0)
        self.on_run = self._held

    def end_one(self) -> None:
        self._ends.release()

    async def _held(self, _: RunId) -> None:
        await self._ends.acquire()


async def test_what_is_rung_is_taken_and_run(lanes: Lanes) -> None:
    handler = RecordingHandler()
    ring = a_ring()

    async with working(lanes, handler):
        await lanes.ring(ring)
        await until(lambda: len(handler.ended) == 1)

    assert [(ring.run_id,)] == handler.takes
    assert [ring.run_id] == handler.ended


async def test_a_bell_starts_a_run_without_any_poll(lanes: Lanes) -> None:
    handler = RecordingHandler()

    async with working(lanes, handler, settings=Settings(poll_s=NEVER_S)):
        for lane in Lane:
            ring = a_ring(lane)
            await lanes.ring(ring)
            await until(lambda ring=ring: ring.run_id in handler.ended)


async def test_what_waited_before_the_worker_came_is_taken_in_batches(lanes: Lanes) -> None:
    handler = RecordingHandler()
    rings = [a_ring(Lane.LOW) for _ in range(500)]
    await lanes.ring_many(rings)

    async with working(lanes, handler, settings=Settings(poll_s=NEVER_S)):
        await until(lambda: len(handler.ended) == 500)

    assert ids(rings) == Counter(handler.ended)
    assert [len(batch) for batch in handler.takes] == [200, 200, 100]


async def test_a_run_starts_when_it_is_due_and_not_before(lanes: Lanes) -> None:
    handler = RecordingHandler()
    due_ms = await _redis_ms(lanes) + 300
    started_ms: list[int] = []

    async def note(_: RunId) -> None:
        started_ms.append(await _redis_ms(lanes))

    handler.on_run = note
    async with working(lanes, handler, settings=Settings(poll_s=NEVER_S)):
        await lanes.ring(a_ring(due_ms=due_ms))
        await until(lambda: len(handler.ended) == 1)

    assert due_ms <= started_ms[0]


async def test_a_freed_slot_is_filled_at_once_while_something_waits(lanes: Lanes) -> None:
    handler = RecordingHandler()
    rings = [a_ring(Lane.LOW) for _ in range(60)]
    most = 0

    async def look(_: RunId) -> None:
        nonlocal most
        await asyncio.sleep(0)
        most = max(most, len(handler.started) - len(handler.ended))

    handler.on_run = look
    await lanes.ring_many(rings)
    async with working(lanes, handler, settings=Settings(slots=2, poll_s=NEVER_S)):
        await until(lambda: len(handler.ended) == 60)

    assert ids(rings) == Counter(handler.ended)
    assert most == 2


async def test_slots_that_come_free_are_given_to_low_by_the_handful(lanes: Lanes) -> None:
    handler = EndedOneByOne()
    await lanes.ring_many([a_ring(Lane.LOW) for _ in range(60)])

    async with working(lanes, handler, settings=MANY) as worker:
        await until(lambda: len(handler.started) == OF_LOW)
        for ended in range(1, HANDFUL_OF_MANY):
            handler.end_one()
            await until(lambda: len(handler.ended) == ended)  # noqa: B023 (awaited at once)
        running_meanwhile = worker.counts().running[Lane.LOW]
        handler.end_one()
        await until(lambda: worker.counts().running[Lane.LOW] == OF_LOW)

    assert running_meanwhile == OF_LOW - HANDFUL_OF_MANY + 1
    assert [OF_LOW, HANDFUL_OF_MANY] == [len(batch) for batch in handler.takes]


async def test_gathered_slots_are_low_s_when_the_moment_is_over(lanes: Lanes) -> None:
    handler = EndedOneByOne()
    await lanes.ring_many([a_ring(Lane.LOW) for _ in range(60)])

    settings = MANY.model_copy(update={"gather_s": 0.01})
    async with working(lanes, handler, settings=settings):
        for ended in range(1, 6):
            await until(lambda: len(handler.started) - len(handler.ended) == OF_LOW)
            handler.end_one()
            await until(lambda: len(handler.ended) == ended)  # noqa: B023 (awaited at once)


async def test_slots_that_come_free_are_given_to_any_other_lane_at_once(lanes: Lanes) -> None:
    handler = EndedOneByOne()
    await lanes.ring_many([a_ring(Lane.LOW) for _ in range(60)])
    normal = [a_ring(Lane.NORMAL) for _ in range(7)]

    async with working(lanes, handler, settings=MANY) as worker:
        await until(lambda: len(handler.started) == OF_LOW)
        await lanes.ring_many(normal)
        await until(lambda: worker.counts().free == 6)  # onsite's floor
        handler.end_one()
        await until(lambda: ids(normal) <= Counter(handler.started))


async def test_floors_keep_slots_for_the_other_lanes(lanes: Lanes) -> None:
    handler = RecordingHandler(gate=asyncio.Event())
    await lanes.ring_many([a_ring(Lane.LOW) for _ in range(50)])

    async with working(lanes, handler, settings=SMALL) as worker:
        await until(lambda: len(handler.started) == 7)
        onsite = [a_ring(Lane.ONSITE) for _ in range(3)]
        await lanes.ring_many(onsite)
        await until(lambda: len(handler.started) == 9)
        counts = worker.counts()

    assert counts.running == {Lane.ONSITE: 2, Lane.NORMAL: 0, Lane.LOW: 7}
    assert counts.free == 1
    assert {ring.run_id for ring in onsite[:2]} == set(handler.started[7:])


async def test_the_shared_room_goes_to_the_important_lane_first(lanes: Lanes) -> None:
    handler = RecordingHandler(gate=asyncio.Event())
    await lanes.ring_many([a_ring(lane) for lane in Lane for _ in range(50)])

    async with working(lanes, handler, settings=SMALL) as worker:
        await until(lambda: worker.counts().free == 0)
        counts = worker.counts()

    assert counts.running == {Lane.ONSITE: 7, Lane.NORMAL: 2, Lane.LOW: 1}


async def test_a_worker_full_for_a_lane_leaves_its_bell_to_others(lanes: Lanes) -> None:
    full, idle = RecordingHandler(gate=asyncio.Event()), RecordingHandler()
    await lanes.ring_many([a_ring(Lane.LOW) for _ in range(7)])

    async with working(lanes, full, settings=SMALL):
        await until(lambda: len(full.started) == 7)
        async with working(lanes, idle, settings=SMALL):
            rings = [a_ring(Lane.LOW) for _ in range(30)]
            for ring in rings:
                await lanes.ring(ring)
                await until(lambda ring=ring: ring.run_id in idle.ended)

    assert len(full.started) == 7


async def test_a_run_that_is_nobodys_frees_its_slot(lanes: Lanes) -> None:
    handler = RecordingHandler()
    rings = [a_ring() for _ in range(30)]
    handler.refused = {ring.run_id for ring in rings[:29]}
    await lanes.ring_many(rings)

    async with working(lanes, handler, settings=Settings(slots=4, poll_s=NEVER_S)) as worker:
        await until(lambda: handler.ended == [rings[29].run_id])
        await until(lambda: worker.counts().free == 4)


async def test_the_same_id_in_two_lanes_is_taken_once(lanes: Lanes) -> None:
    handler = RecordingHandler(gate=asyncio.Event())
    ring = a_ring(Lane.NORMAL)
    await lanes.ring_many([ring, Ring(ring.run_id, Lane.LOW)])

    async with working(lanes, handler) as worker:
        await until(lambda: handler.started == [ring.run_id])
        assert worker.counts().free == 1999


async def test_ids_go_back_into_their_lanes_when_taking_them_fails(lanes: Lanes) -> None:
    handler = RecordingHandler()
    rings = [a_ring(lane) for lane in Lane for _ in range(5)]
    failures = iter([RuntimeError("the database is away")] * 2)

    async def fail_twice(_: Sequence[RunId]) -> None:
        for failure in failures:
            raise failure

    handler.on_take = fail_twice
    await lanes.ring_many(rings)

    async with working(lanes, handler) as worker:
        await until(lambda: len(handler.ended) == 15)
        await until(lambda: worker.counts().free == 2000)

    assert ids(rings) == Counter(handler.ended)


async def test_a_run_that_raises_frees_its_slot_and_hurts_no_other(lanes: Lanes) -> None:
    handler = RecordingHandler()
    rings = [a_ring() for _ in range(10)]

    async def fail(run_id: RunId) -> None:
        if run_id == rings[0].run_id:
            raise RuntimeError("a bug")

    handler.on_run = fail
    await lanes.ring_many(rings)

    async with working(lanes, handler, settings=Settings(slots=3, poll_s=0.05)) as worker:
        await until(lambda: len(handler.ended) == 9)
        await until(lambda: worker.counts().free == 3)

    assert (worker.jobs_complete, worker.jobs_failed) == (9, 1)


async def test_nothing_is_claimed_while_the_handler_forbids_it(lanes: Lanes) -> None:
    handler = RecordingHandler()
    handler.may = False
    await lanes.ring(a_ring())

    async with working(lanes, handler):
        await until(lambda: handler.asked > 3)
        waiting = (await lanes.waiting())[Lane.NORMAL]
        handler.may = True
        await until(lambda: len(handler.ended) == 1)

    assert waiting == 1


async def test_a_handler_that_cannot_say_whether_it_may_start_does_not(lanes: Lanes) -> None:
    class Undecided(RecordingHandler):
        def may_start(self) -> bool:
            if super().may_start():
                return True
            raise RuntimeError("no lease")

    handler = Undecided()
    handler.may = False
    await lanes.ring(a_ring())

    async with working(lanes, handler):
        await until(lambda: handler.asked > 3)
        waiting = (await lanes.waiting())[Lane.NORMAL]
        handler.may = True
        await until(lambda: len(handler.ended) == 1)

    assert waiting == 1


async def test_a_paused_lane_starts_nothing_until_it_resumes(lanes: Lanes) -> None:
    handler = RecordingHandler()
    low, normal = a_ring(Lane.LOW), a_ring(Lane.NORMAL)
    await lanes.pause(Lane.LOW)

    async with working(lanes, handler, settings=Settings(poll_s=NEVER_S)):
        await lanes.ring_many([low, normal])
        await until(lambda: handler.ended == [normal.run_id])
        await lanes.resume(Lane.LOW)
        await until(lambda: handler.ended == [normal.run_id, low.run_id])


async def test_a_retry_rung_by_its_own_run_is_not_lost(lanes: Lanes) -> None:
    handler = RecordingHandler()
    ring = a_ring()

    async def ring_again(_: RunId) -> None:
        if len(handler.started) < 20:
            await lanes.ring(ring)

    handler.on_run = ring_again
    async with working(lanes, handler, settings=Settings(poll_s=NEVER_S)):
        await lanes.ring(ring)
        await until(lambda: len(handler.ended) == 20)


async def test_garbage_in_the_lanes_is_dropped_and_the_rest_runs(lanes: Lanes) -> None:
    handler = RecordingHandler()
    await lanes.zadd("rl:low", {b"\xff junk": 1, b"x" * 10_000: 2, b"no-function": 3})
    await lanes.set("arq:job:no-function", b"\x82\xa1f\xa4nope\xa1a\x90")
    ring = a_ring(Lane.LOW)
    await lanes.ring(ring)

    async with working(lanes, handler) as worker:
        await until(lambda: handler.ended == [ring.run_id])
        await until(lambda: worker.counts().free == 2000)

    assert (await lanes.waiting())[Lane.LOW] == 0


async def test_takes_overlap_but_no_more_than_two(lanes: Lanes) -> None:
    handler = RecordingHandler()
    release = asyncio.Event()

    async def hold(_: Sequence[RunId]) -> None:
        await release.wait()

    handler.on_take = hold
    rings = [a_ring() for _ in range(6)]
    async with working(lanes, handler):
        for ring in rings[:2]:
            await lanes.ring(ring)
            await until(lambda ring=ring: (ring.run_id,) in handler.takes)
        for ring in rings[2:]:
            await lanes.ring(ring)
        in_flight = len(handler.takes)
        release.set()
        await until(lambda: len(handler.ended) == 6)

    assert in_flight == 2
    assert [len(batch) for batch in handler.takes] == [1, 1, 4]


async def _redis_ms(lanes: Lanes) -> int:
    seconds, microseconds = await lanes.time()
    return int(seconds) * 1000 + int(microseconds) // 1000
