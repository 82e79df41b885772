"""Redis is gone, silent or full: runs are accepted as before, and started without it."""

import asyncio

import pytest

from tests.faults.client import Reply
from tests.faults.rig import Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
SLOWER_S = 0.5
NOISE_S = 0.5
"""What the same request may take longer on a busy machine, whatever Redis does."""


@pytest.mark.parametrize("fault", ["down", "blackhole"])
async def test_without_redis_runs_are_accepted_nearly_as_fast_and_carried_out(
    rig: Rig, fault: str
) -> None:
    await rig.api()
    worker = await rig.worker(redis_timeout_s=0.3)
    usual = [await _timed(rig, f"{fault} before {number}") for number in range(3)]

    if fault == "down":
        await rig.to_redis.down()
    else:
        rig.to_redis.blackhole()
    without = await asyncio.gather(*(_timed(rig, f"{fault} {number}") for number in range(8)))
    rows = [await rig.ended(reply.run_id) for reply, _ in without]
    await rig.to_redis.pass_on()
    await worker.says("redis_back")
    later = await rig.ended(await rig.customer.accepted(f"{fault} later", ANSWER))

    assert [200] * 8 == [reply.status for reply, _ in without]
    assert max(took for _, took in without) <= min(t for _, t in usual) + SLOWER_S + NOISE_S
    assert [("succeeded", 1)] * 9 == [(row["status"], row["claim_no"]) for row in (*rows, later)]
    assert [] == await rig.verdict()


async def test_while_redis_is_full_runs_are_accepted_and_carried_out(rig: Rig) -> None:
    api = await rig.api()
    worker = await rig.worker()

    async with rig.full_redis():
        rows = [
            await rig.ended(await rig.customer.accepted(f"f11 {number}", ANSWER))
            for number in range(3)
        ]
        full = await rig.customer.get("/readyz")
    await worker.says("redis_back")
    later = await rig.ended(await rig.customer.accepted("f11 later", ANSWER))
    emptied = await rig.customer.get("/readyz")

    degraded = {"status": "degraded", "database": "ok", "redis": "refuses writes"}
    assert (200, degraded) == (full.status, full.document)
    assert {"status": "ready", "database": "ok", "redis": "ok"} == emptied.document
    assert ["OutOfMemoryError"] * 3 == [line["error"] for line in api.said("ring_failed")]
    assert [("succeeded", 1)] * 4 == [(row["status"], row["claim_no"]) for row in (*rows, later)]
    assert [] == await rig.verdict()


async def _timed(rig: Rig, case: str) -> tuple[Reply, float]:
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    reply = await rig.customer.submit(case, ANSWER)
    return reply, loop.time() - asked_at
