"""Redis dies and comes back, empty or as it was, or stands still for long."""

import asyncio

import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
SLOW = model_of("slow-100")
FAILS_FIRST = model_of("500", "answer")
FROZEN_S = 20.0
SLOWER_S = 0.5
NOISE_S = 0.5
"""What the same request may take longer on a busy machine, whatever Redis does."""


async def test_redis_and_workers_started_anew_with_nothing_go_on_with_everything(
    rig: Rig,
) -> None:
    await rig.api()
    workers = [await rig.worker(slots=4), await rig.worker(slots=4)]
    runs = [await rig.customer.accepted(f"f9 {number}", SLOW) for number in range(60)]
    runs += [await rig.customer.accepted(f"f9 fails {n}", FAILS_FIRST) for n in range(5)]
    await rig.called(runs[0])

    rig.servers.valkey.kill()
    await workers[0].kill()
    rig.replace_redis_files()
    await asyncio.to_thread(rig.servers.valkey.start)
    await rig.worker(slots=4)
    rows = [await rig.ended(run_id) for run_id in runs]

    assert {"succeeded"} == {row["status"] for row in rows}
    assert workers[1].alive
    assert [] == await rig.verdict()


async def test_redis_back_from_its_file_starts_nothing_a_second_time(rig: Rig) -> None:
    await rig.api()
    worker = await rig.worker(slots=8)
    runs = [await rig.customer.accepted(f"f10 {number}", SLOW) for number in range(60)]
    await rig.called(runs[0])

    for _ in range(3):
        rig.servers.valkey.kill()
        await asyncio.to_thread(rig.servers.valkey.start)
        await pause(0.5)
    rows = [await rig.ended(run_id) for run_id in runs]
    await rig.no_rings_wait()

    assert [("succeeded", 1)] * 60 == [(row["status"], row["claim_no"]) for row in rows]
    assert [1] * 60 == [len(rig.vendors.calls_of(run_id)) for run_id in runs]
    assert worker.alive
    assert [] == await rig.verdict()


async def test_redis_frozen_for_long_slows_submissions_down_by_its_budget_at_most(
    rig: Rig,
) -> None:
    await rig.api()
    worker = await rig.worker(redis_timeout_s=0.5)
    loop = asyncio.get_running_loop()
    took_s: list[float] = []

    async def submit(case: str) -> str:
        asked_at = loop.time()
        run_id = await rig.customer.accepted(case, ANSWER)
        took_s.append(loop.time() - asked_at)
        return run_id

    await submit("f12 before")
    (usual_s,) = took_s
    asking: list[asyncio.Task[str]] = []
    with rig.frozen_redis():
        ends_at = loop.time() + FROZEN_S
        while loop.time() < ends_at:
            asking.append(asyncio.create_task(submit(f"f12 {len(asking)}")))
            await pause(0.1)
        runs = await asyncio.gather(*asking)
        early = [await rig.ended(run_id) for run_id in runs[: len(runs) // 2]]
    await worker.says("redis_back")
    rows = [*early, *[await rig.ended(run_id) for run_id in runs[len(early) :]]]

    assert max(took_s) <= usual_s + SLOWER_S + NOISE_S
    assert {("succeeded", 1)} == {(row["status"], row["claim_no"]) for row in rows}
    assert [] == await rig.verdict()
