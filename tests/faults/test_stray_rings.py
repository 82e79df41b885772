"""Rings that should not be there: too many, too late, for nothing, or no rings at all."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from shared.domain.states import Lane
from shared.queue.lanes import QUEUES, RUN
from tests.faults.rig import Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
SLOW = model_of("slow-300")


async def test_an_old_redis_brought_back_starts_nothing_twice(rig: Rig, tmp_path: Path) -> None:
    await rig.api()
    runs = [await rig.customer.accepted(f"f13 {number}", ANSWER) for number in range(20)]
    valkey = rig.servers.valkey
    rig.keep_redis_files(tmp_path / "old")
    worker = await rig.worker(lease_s=30, self_fence_s=25)
    for run_id in runs:
        await rig.ended(run_id)

    await worker.freeze()
    valkey.kill()
    rig.replace_redis_files(tmp_path / "old")
    await asyncio.to_thread(valkey.start)
    async with rig.redis() as lanes:
        stale = await lanes.waiting()
    worker.thaw()
    await rig.no_rings_wait()
    later = await rig.ended(await rig.customer.accepted("f13 later", ANSWER))
    rows = [await rig.run(run_id) for run_id in runs]

    assert 20 == stale[Lane.NORMAL]
    assert [("succeeded", 1)] * 21 == [(row["status"], row["claim_no"]) for row in (*rows, later)]
    assert [1] * 20 == [len(rig.vendors.calls_of(run_id)) for run_id in runs]
    assert [] == await rig.verdict()


async def test_a_run_that_is_rung_fifty_times_is_claimed_once(rig: Rig) -> None:
    await rig.api()
    run_id = await rig.customer.accepted("f14", SLOW)
    await _ring_often(rig, run_id, "before")

    await rig.worker()
    await rig.worker()
    await rig.called(run_id)
    await _ring_often(rig, run_id, "meanwhile")
    await rig.ended(run_id)
    await _ring_often(rig, run_id, "afterwards")
    await rig.no_rings_wait()
    row = await rig.run(run_id)

    assert ("succeeded", 1, 1) == (row["status"], row["claim_no"], len(row["tried"]))
    assert 1 == len(rig.vendors.calls_of(run_id))
    assert [] == await rig.verdict()


async def _ring_often(rig: Rig, run_id: str, when: str) -> None:
    """Ring under ids of their own, as ARQ's own client would."""
    async with rig.redis() as lanes:
        for number in range(50):
            queue = QUEUES[list(Lane)[number % 3]]
            job = f"{when} {number}"
            assert await lanes.enqueue_job(RUN, run_id, _job_id=job, _queue_name=queue)


async def test_garbage_in_a_lane_is_logged_and_dropped(rig: Rig) -> None:
    await rig.api()
    worker = await rig.worker()
    unknown = str(uuid4())

    async with rig.redis() as lanes, lanes.pipeline(transaction=True) as pipe:
        pipe.set("arq:job:pickled", b"\x80\x05\x95\x10\x00\x00\x00\x00")
        pipe.set("arq:job:empty", b"")
        for queue in QUEUES.values():
            pipe.zadd(queue, {b"\xff\xfe": 1, b"no run": 1, b"pickled": 1, b"empty": 1})
        await pipe.execute()
        await lanes.enqueue_job("somebody_else_s", _job_id="foreign")
        await lanes.enqueue_job(RUN, unknown, _job_id=unknown)
    await worker.says("garbage_dropped")
    await rig.no_rings_wait()
    row = await rig.ended(await rig.customer.accepted("f15", ANSWER))

    assert 13 == sum(int(str(line["count"])) for line in worker.said("garbage_dropped"))
    assert [unknown] == [line["first_id"] for line in worker.said("unknown_runs_dropped")]
    assert "succeeded" == row["status"]
    assert [] == await rig.verdict()
