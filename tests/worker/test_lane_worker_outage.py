"""A worker whose Redis dies, freezes, refuses or forgets."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from cli.embedded import start
from cli.embedded.valkey import Valkey
from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.settings import Settings
from tests.worker.lane_rig import NEVER_S, RecordingHandler, a_ring, until, working
from worker.handler import Taken

HASTY = Settings(slots=20, lane_floors=(0.2, 0.1, 0.1), poll_s=0.05, redis_away_s=0.1)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, to be killed."""
    with start(tmp_path, postgres=False, durable=False) as servers:
        yield servers.valkey


@pytest.fixture
async def lanes(valkey: Valkey) -> AsyncIterator[Lanes]:
    lanes = connect(valkey.url, timeout_s=0.3, connect_timeout_s=0.3)
    yield lanes
    await lanes.aclose()


class Database:
    """Due runs, claimed without Redis."""

    def __init__(self, **waiting: int) -> None:
        self.waiting = Counter({Lane(lane): count for lane, count in waiting.items()})
        self.asked: list[Mapping[Lane, int]] = []
        self.failing = False

    async def claim(self, room: Mapping[Lane, int]) -> Sequence[Taken[RunId]]:
        self.asked.append(room)
        if self.failing:
            raise RuntimeError("also away")
        taken: list[Taken[RunId]] = []
        for lane, most in room.items():
            count = min(most, self.waiting[lane])
            self.waiting[lane] -= count
            taken += [Taken(run_id, lane, run_id) for run_id in map(RunId, ids_of(count))]
        return taken


def ids_of(count: int) -> list[RunId]:
    return [RunId(new_id()) for _ in range(count)]


async def test_while_redis_is_away_runs_come_from_the_database(
    lanes: Lanes, valkey: Valkey
) -> None:
    handler = RecordingHandler()
    database = Database(onsite=100, normal=30, low=10)

    async with working(
        lanes, handler, settings=HASTY, claim_from_database=database.claim
    ) as worker:
        valkey.kill()
        await until(lambda: len(handler.ended) == 140)
        away = worker.counts().redis_away
        valkey.start()
        await until(lambda: not worker.counts().redis_away)
        ring = a_ring()
        await lanes.ring(ring)
        await until(lambda: handler.ended[-1] == ring.run_id)
        asked = len(database.asked)
        await lanes.ring(a_ring())
        await until(lambda: len(handler.ended) == 142)

    assert away
    assert len(database.asked) == asked


async def test_the_database_is_asked_in_the_lanes_proportions_and_for_no_more_than_fits(
    lanes: Lanes, valkey: Valkey
) -> None:
    handler = RecordingHandler(gate=asyncio.Event())
    database = Database(onsite=100, normal=100, low=100)

    async with working(
        lanes, handler, settings=HASTY, claim_from_database=database.claim
    ) as worker:
        valkey.kill()
        await until(lambda: worker.counts().free == 0)
        counts = worker.counts()

    assert counts.running == {Lane.ONSITE: 12, Lane.NORMAL: 5, Lane.LOW: 3}
    assert sum(database.asked[0].values()) == 20


async def test_what_an_empty_lane_leaves_of_the_room_goes_to_the_others(
    lanes: Lanes, valkey: Valkey
) -> None:
    handler = RecordingHandler(gate=asyncio.Event())
    database = Database(low=100)

    async with working(
        lanes, handler, settings=HASTY, claim_from_database=database.claim
    ) as worker:
        valkey.kill()
        await until(lambda: worker.counts().running[Lane.LOW] == 14)
        assert worker.counts().free == 6  # the floors of onsite and normal


async def test_a_database_that_is_away_as_well_ends_nothing(lanes: Lanes, valkey: Valkey) -> None:
    handler = RecordingHandler()
    database = Database(normal=5)
    database.failing = True

    async with working(lanes, handler, settings=HASTY, claim_from_database=database.claim):
        valkey.kill()
        await until(lambda: len(database.asked) > 2)
        database.failing = False
        await until(lambda: len(handler.ended) == 5)


async def test_a_short_hiccup_asks_no_database(lanes: Lanes, valkey: Valkey) -> None:
    handler = RecordingHandler()
    database = Database(normal=5)
    patient = Settings(poll_s=0.05, redis_away_s=NEVER_S)

    async with working(
        lanes, handler, settings=patient, claim_from_database=database.claim
    ) as worker:
        valkey.kill()
        await until(lambda: worker.counts().redis_away)
        valkey.start()
        await until(lambda: not worker.counts().redis_away)

    assert database.asked == []


async def test_bells_and_cancels_work_again_after_redis_was_killed(
    lanes: Lanes, valkey: Valkey
) -> None:
    handler = RecordingHandler(gate=asyncio.Event())

    async with working(lanes, handler, settings=Settings(poll_s=NEVER_S)):
        await lanes.ring(a_ring())
        await until(lambda: len(handler.started) == 1)
        valkey.kill()
        valkey.start()
        ring = a_ring(Lane.ONSITE)
        await lanes.ring(ring)
        await until(lambda: len(handler.started) == 2)
        await until(lambda: stopped_by_cancel(lanes, ring.run_id, handler))


async def stopped_by_cancel(lanes: Lanes, run_id: RunId, handler: RecordingHandler) -> bool:
    await lanes.cancel(run_id)
    return run_id in handler.stops


async def test_a_frozen_redis_is_away_and_may_come_back(lanes: Lanes, valkey: Valkey) -> None:
    handler = RecordingHandler()
    database = Database(normal=5)

    async with working(
        lanes, handler, settings=HASTY, claim_from_database=database.claim
    ) as worker:
        os.kill(valkey.pid, signal.SIGSTOP)
        await until(lambda: len(handler.ended) == 5)
        os.kill(valkey.pid, signal.SIGCONT)
        await until(lambda: not worker.counts().redis_away)
        await lanes.ring(a_ring())
        await until(lambda: len(handler.ended) == 6)


async def test_a_lane_of_the_wrong_type_is_an_outage_until_it_is_mended(lanes: Lanes) -> None:
    handler = RecordingHandler()
    await lanes.set("rl:low", b"junk")

    async with working(lanes, handler, settings=HASTY) as worker:
        await until(lambda: worker.counts().redis_away)
        await lanes.delete("rl:low")
        await lanes.ring(a_ring(Lane.LOW))
        await until(lambda: len(handler.ended) == 1)
        assert not worker.counts().redis_away


async def test_what_waits_still_runs_when_redis_is_out_of_memory(lanes: Lanes) -> None:
    handler = RecordingHandler()
    await lanes.ring_many([a_ring(Lane.LOW) for _ in range(300)])
    await lanes.config_set("maxmemory", 1)
    with pytest.raises(RedisError, match="maxmemory"):
        await lanes.ring(a_ring())

    async with working(lanes, handler, settings=HASTY):
        await until(lambda: len(handler.ended) == 300)


async def test_runs_come_from_the_database_while_redis_is_out_of_memory(lanes: Lanes) -> None:
    handler = RecordingHandler()
    database = Database(normal=5)

    async with working(
        lanes, handler, settings=HASTY, claim_from_database=database.claim
    ) as worker:
        await lanes.config_set("maxmemory", 1)
        await until(lambda: len(handler.ended) == 5)
        await lanes.config_set("maxmemory", 0)
        await until(lambda: not worker.counts().redis_away)
        await lanes.ring(a_ring())
        await until(lambda: len(handler.ended) == 6)


async def test_forgetting_everything_costs_only_what_waited(lanes: Lanes) -> None:
    handler = RecordingHandler()

    async with working(lanes, handler, settings=Settings(poll_s=NEVER_S)):
        for _ in range(10):
            await lanes.flushall()
            await lanes.script_flush()
            ring = a_ring()
            await lanes.ring(ring)
            await until(lambda ring=ring: ring.run_id in handler.ended)
