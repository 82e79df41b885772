"""Conformance with stock ARQ: its producer, its worker, its jobs on our lanes."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from arq.connections import RedisSettings, create_pool
from arq.cron import cron
from arq.worker import Function, Retry, Worker

from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.queue.lanes import Lanes, deserialize, serialize
from shared.settings import Settings
from tests.worker.lane_rig import (
    RecordingHandler,
    a_ring,
    fresh_lanes,  # noqa: F401 (a fixture)
    ids,
    until,
    working,
)


async def work_off(url: str, queue: str, runs: asyncio.Event | None = None) -> list[str]:
    """Let a stock ARQ worker empty a queue; answers the arguments of the jobs it ran.

    `runs` is set as soon as it runs one.
    """
    ran: list[str] = []

    async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
        ran.extend(args)
        if runs is not None:
            runs.set()

    worker = Worker(
        [Function("run", run, None, None, None, None)],
        queue_name=queue,
        redis_settings=RedisSettings.from_dsn(url),
        job_serializer=serialize,
        job_deserializer=deserialize,
        burst=True,
        handle_signals=False,
        poll_delay=0.01,
        keep_result=0,
        max_jobs=50,
    )
    await asyncio.wait_for(worker.async_run(), 60)
    await worker.pool.aclose(close_connection_pool=True)
    return ran


async def test_a_stock_producer_feeds_our_worker(lanes: Lanes, redis_url: str) -> None:
    handler = RecordingHandler()
    producer = await create_pool(RedisSettings.from_dsn(redis_url), job_serializer=serialize)
    run_ids = [RunId(new_id()) for _ in range(3000)]

    async with working(lanes, handler):
        for run_id in run_ids:
            job = await producer.enqueue_job(
                "run", str(run_id), _job_id=str(run_id), _queue_name="rl:normal"
            )
            assert job is not None
        await until(lambda: len(handler.ended) >= len(run_ids))

    assert Counter(run_ids) == Counter(handler.ended)
    await producer.aclose(close_connection_pool=True)


@pytest.mark.parametrize("lane", list(Lane))
async def test_our_ring_feeds_a_stock_worker(lanes: Lanes, redis_url: str, lane: Lane) -> None:
    rings = [a_ring(lane) for _ in range(1000)]  # 3,000 through the three of them
    await lanes.ring_many(rings)

    ran = await work_off(redis_url, f"rl:{lane}")

    assert sorted(str(ring.run_id) for ring in rings) == sorted(ran)
    assert (await lanes.waiting())[lane] == 0


async def test_both_workers_on_one_queue_run_each_job_once(lanes: Lanes, redis_url: str) -> None:
    handler, ours, theirs = RecordingHandler(), asyncio.Event(), asyncio.Event()

    async def until_the_other_has_one_too(_: RunId) -> None:
        ours.set()
        await theirs.wait()

    handler.on_run = until_the_other_has_one_too
    rings = [a_ring() for _ in range(3000)]
    await lanes.ring_many(rings)

    async with working(lanes, handler, settings=Settings(slots=4, poll_s=0.02)):
        await ours.wait()
        ran = await work_off(redis_url, "rl:normal", theirs)
        await until(lambda: len(handler.ended) + len(ran) >= 3000)

    assert ids(rings) == Counter(handler.ended) + Counter(RunId(UUID(text)) for text in ran)
    assert len(ran) > 0
    assert len(handler.ended) > 0


async def test_a_registered_function_of_arqs_runs_with_its_retries(lanes: Lanes) -> None:
    tries: list[int] = []

    async def tidy(ctx: dict[Any, Any], what: str) -> str:
        tries.append(ctx["job_try"])
        if len(tries) < 3:
            raise Retry(defer=0.01)
        return f"tidied {what}"

    function = Function("tidy", tidy, None, None, None, None)
    async with working(lanes, RecordingHandler(), functions=[function]) as worker:
        job = await lanes.enqueue_job("tidy", "up")
        assert job is not None
        await until(lambda: exists(lanes, f"arq:result:{job.job_id}"))
        result = await job.result()
        await until(lambda: worker.counts().free == 2000)

    assert result == "tidied up"
    assert tries == [1, 2, 3]


async def test_a_cron_job_runs(lanes: Lanes) -> None:
    ran = asyncio.Event()

    async def tick(_ctx: dict[Any, Any]) -> None:
        ran.set()

    job = cron(tick, run_at_startup=True, second={0})  # type: ignore[arg-type] # lacks __qualname__
    async with working(lanes, RecordingHandler(), cron_jobs=[job]):
        await asyncio.wait_for(ran.wait(), 10)


async def test_arqs_health_check_finds_the_worker_until_it_ends(lanes: Lanes) -> None:
    async with working(lanes, RecordingHandler()):
        await until(lambda: exists(lanes, "rl:normal:health-check"))

    assert not await exists(lanes, "rl:normal:health-check")


async def exists(lanes: Lanes, key: str) -> bool:
    return bool(await lanes.exists(key))
