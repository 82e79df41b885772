"""Thousands of runs wait while Redis is emptied, or is told of each of them again and again."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from shared.domain.states import Lane
from shared.ids import RunId
from shared.queue.port import Ring
from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
BATCH = 1_000
PRODUCTION = {"sweep_s": 5, "reap_s": 2, "poll_s": 1, "slots": 500}
_CLAIMS = "SELECT count(*) FROM witness.moves WHERE was = 'queued' AND became = 'running'"


async def test_ten_thousand_queued_runs_outlive_an_emptied_redis(rig: Rig) -> None:
    await rig.api()
    worker = await rig.worker(**PRODUCTION, lease_s=60, self_fence_s=50)
    await worker.freeze()
    runs = await _submit(rig, "flush", 10_000)
    async with rig.redis() as lanes:
        rung = (await lanes.waiting())[Lane.NORMAL]
        await lanes.flushall()
        left = (await lanes.waiting())[Lane.NORMAL]

    worker.thaw()
    await until(lambda: _claimed(rig), "the first run starts", within_s=10)
    await rig.quiet(within_s=200)
    ends = await rig.rows("SELECT status, claim_no, count(*) FROM runs GROUP BY 1, 2")

    assert (10_000, 0) == (rung, left)
    assert [{"status": "succeeded", "claim_no": 1, "count": len(runs)}] == ends
    assert [] == await rig.verdict()


async def test_five_thousand_runs_rung_by_everybody_are_claimed_once_each(rig: Rig) -> None:
    await rig.api()
    runs = await _submit(rig, "race", 5_000)
    ending = asyncio.Event()

    async def ring() -> None:
        """A sweeper that knows no leader; Redis forgets, so that the workers' one rings as well."""
        rings = [Ring(RunId(UUID(run_id)), Lane.NORMAL) for run_id in runs]
        while not ending.is_set():
            async with rig.redis() as lanes:
                await lanes.flushall()
                await lanes.ring_many(rings)
            await pause(0.2)

    ringing = asyncio.create_task(ring())
    workers = [await rig.worker(slots=200, sweep_s=0.1, reap_s=0.1) for _ in range(4)]
    await until(lambda: _over(rig), "every run is over", within_s=200)
    ending.set()
    await ringing
    ends = await rig.rows("SELECT status, claim_no, count(*) FROM runs GROUP BY 1, 2")

    assert [{"status": "succeeded", "claim_no": 1, "count": 5_000}] == ends
    assert any(worker.said("rang_again") for worker in workers)
    assert [] == await rig.verdict(within_s=60)


async def _submit(rig: Rig, name: str, count: int) -> Sequence[str]:
    runs: list[str] = []
    for first in range(0, count, BATCH):
        cases = [f"{name} {number}" for number in range(first, first + BATCH)]
        runs += await rig.customer.submit_many(cases, ANSWER)
    return runs


async def _claimed(rig: Rig) -> bool:
    (claims,) = await rig.rows(_CLAIMS)
    return bool(claims["count"])


async def _over(rig: Rig) -> bool:
    (left,) = await rig.rows("SELECT count(*) FROM runs WHERE finished_at IS NULL")
    return bool(left["count"] == 0)
