"""PostgreSQL crashes, stays away, or its answers get lost: nothing in hand is lost with it."""

import asyncio

import pytest

from tests.faults.processes import Child
from tests.faults.rig import LEASE_S, Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
POINTS = (
    "after_claim",
    "before_intent",
    "after_intent",
    "after_response",
    "before_finish_commit",
    "after_finish_commit",
    "after_delivery_200",
)
ENDS_A_RUN = b'"status":"succeeded","attempt":1'
ANNOUNCES_A_CALL = b'"provider":"openai"'


@pytest.mark.parametrize("statement", [ENDS_A_RUN, ANNOUNCES_A_CALL], ids=["finish", "intent"])
async def test_a_worker_recognises_what_it_committed_without_hearing_so(
    rig: Rig, statement: bytes
) -> None:
    await rig.api()
    await rig.worker()
    link = rig.to_postgres["worker"]
    cuts = link.cuts

    link.lose_reply_to(statement)
    run_id = await rig.customer.accepted("f5", ANSWER)
    row = await rig.ended(run_id)

    assert [] == await rig.verdict()
    assert 1 == link.cuts - cuts
    assert ("succeeded", 1) == (row["status"], row["claim_no"])
    assert 1 == len(row["tried"])
    assert 1 == len(rig.vendors.calls_of(run_id))


async def test_an_idle_service_is_back_within_seconds_of_a_crash_of_the_database(rig: Rig) -> None:
    await rig.api()
    worker = await rig.worker()
    await rig.ended(await rig.customer.accepted("f27 before", ANSWER))

    await asyncio.to_thread(rig.servers.postgres.restart, "immediate")
    later = await until(lambda: _accepted(rig, "f27 later"), "submissions are taken", within_s=5)
    row = await rig.ended(later, within_s=5)

    assert ("succeeded", 1) == (row["status"], row["claim_no"])
    assert [] == worker.said("workers_lost")
    assert [] == await rig.verdict()


async def test_a_crash_of_the_database_at_any_point_of_a_run_costs_no_second_call(
    rig: Rig,
) -> None:
    await rig.api()
    frozen: list[Child] = []
    runs: list[str] = []
    for point in POINTS:  # a lease long enough that the freeze itself kills nobody
        child = await rig.worker(crash_point=f"{point}:stop", lease_s=30, self_fence_s=25)
        frozen.append(child)
        runs.append(await rig.customer.accepted(f"f28 {point}", ANSWER))
        await child.frozen()

    await asyncio.to_thread(rig.servers.postgres.restart, "immediate")
    for child in frozen:
        child.thaw()
    rows = [await rig.ended(run_id) for run_id in runs]

    assert [] == await rig.verdict()
    assert [("succeeded", 1)] * 7 == [(row["status"], row["claim_no"]) for row in rows]
    assert [1] * 7 == [len(rig.vendors.calls_of(run_id)) for run_id in runs]
    assert all(child.alive for child in frozen)


async def test_an_outage_longer_than_the_lease_kills_no_worker_and_loses_no_answer(
    rig: Rig,
) -> None:
    await rig.api()
    workers = [await rig.worker(), await rig.worker()]
    runs = [await rig.customer.accepted(f"f29 {n}", model_of("slow-1500")) for n in range(6)]
    for run_id in runs:
        await rig.called(run_id)
    loop = asyncio.get_running_loop()

    await asyncio.to_thread(rig.servers.postgres.stop)
    asked_at = loop.time()
    refused = await rig.customer.submit("f29 refused", ANSWER)
    took_s = loop.time() - asked_at
    await pause(1.5 * LEASE_S)
    await asyncio.to_thread(rig.servers.postgres.start)
    later = await until(
        lambda: _accepted(rig, "f29 later"), "submissions are accepted again", within_s=5
    )
    rows = [await rig.ended(run_id) for run_id in (*runs, later)]

    assert 503 == refused.status
    assert int(refused.headers["retry-after"]) > 0
    assert took_s < 3
    assert [("succeeded", 1)] * 7 == [(row["status"], row["claim_no"]) for row in rows]
    assert [1] * 6 == [len(rig.vendors.calls_of(run_id)) for run_id in runs]
    assert [] == [event for worker in workers for event in worker.said("workers_lost")]
    assert [] == await rig.verdict()


async def _accepted(rig: Rig, case: str) -> str | None:
    reply = await rig.customer.submit(case, ANSWER, key=case)
    return reply.run_id if reply.accepted else None
