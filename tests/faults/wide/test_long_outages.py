"""Outages of PostgreSQL of every kind that last: away, mute, slow, cutting connections, full."""

import asyncio
from random import Random
from uuid import UUID

import pytest

from tests.faults import database
from tests.faults.client import Reply
from tests.faults.processes import Child
from tests.faults.rig import LEASE_S, Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
PROMPT_S = 3.0
LEASES = 8
LINES_A_PROCESS = 30


async def asked_for(rig: Rig, seconds: float, case: str) -> list[Reply]:
    """Submit twice a second for a while, without waiting for one answer before the next."""
    asking = []
    for number in range(round(2 * seconds)):
        asking.append(
            asyncio.create_task(
                rig.customer.submit(f"{case} {number}", ANSWER, key=f"{case} {number}")
            )
        )
        await pause(0.5)
    return await asyncio.gather(*asking)


async def accepted(rig: Rig, case: str) -> str | None:
    reply = await rig.customer.submit(case, ANSWER, key=case)
    return reply.run_id if reply.accepted else None


async def in_flight(rig: Rig, count: int, model: str) -> list[str]:
    runs = [await rig.customer.accepted(f"in flight {n}", model) for n in range(count)]
    for run_id in runs:
        await rig.called(run_id)
    return runs


async def test_an_outage_of_many_leases_is_answered_promptly_and_leaves_nothing_behind(
    rig: Rig,
) -> None:
    api = await rig.api()
    workers = [await rig.worker(), await rig.worker()]
    runs = await in_flight(rig, 6, model_of("slow-1500"))

    await asyncio.to_thread(rig.servers.postgres.stop)
    replies = await asked_for(rig, LEASES * LEASE_S, "f30")
    await asyncio.to_thread(rig.servers.postgres.start)
    later = await until(lambda: accepted(rig, "f30 later"), "submissions are taken", within_s=5)
    rows = [await rig.ended(run_id) for run_id in (*runs, later)]

    assert {503} == {reply.status for reply in replies}
    assert all("retry-after" in reply.headers for reply in replies)
    assert max(reply.took_s for reply in replies) < PROMPT_S
    assert [("succeeded", 1)] * 7 == [(row["status"], row["claim_no"]) for row in rows]
    assert [1] * 6 == [len(rig.vendors.calls_of(run_id)) for run_id in runs]
    assert all(child.alive for child in (api, *workers))
    assert [] == [event for worker in workers for event in worker.said("workers_lost")]
    for child in (api, *workers):
        assert len(child.log.read_text().splitlines()) < LINES_A_PROCESS, child.last_words()
    assert [] == await rig.verdict()


async def test_a_database_that_goes_mute_hangs_nobody_and_fences_its_workers(rig: Rig) -> None:
    api = await rig.api()
    worker = await rig.worker()
    runs = await in_flight(rig, 4, model_of("slow-1000"))

    for proxy in rig.to_postgres.values():
        proxy.blackhole()
    replies = await asked_for(rig, 2.5 * LEASE_S, "f31")
    calls = len(rig.vendors.ledger)
    for proxy in rig.to_postgres.values():
        await proxy.pass_on()
    later = await until(lambda: accepted(rig, "f31 later"), "submissions are taken", within_s=8)
    rows = [await rig.ended(run_id) for run_id in (*runs, later)]

    assert {500, 503} >= {reply.status for reply in replies}
    assert max(reply.took_s for reply in replies) < PROMPT_S
    assert 4 == calls
    assert [("succeeded", 1)] * 5 == [(row["status"], row["claim_no"]) for row in rows]
    assert (api.alive, worker.alive) == (True, True)
    assert [] == await rig.verdict()


async def test_connections_that_never_speak_again_are_replaced_within_seconds(rig: Rig) -> None:
    await rig.api()
    worker = await rig.worker(maintenance_timeout_s=3)
    runs = await in_flight(rig, 4, model_of("slow-1000"))

    for proxy in rig.to_postgres.values():
        proxy.silence()
    replies = await asyncio.gather(
        *(rig.customer.submit(f"f31 {n}", ANSWER, key=f"f31 {n}") for n in range(20))
    )
    later = await until(lambda: accepted(rig, "f31 mute"), "submissions are taken", within_s=12)
    rows = [await rig.ended(run_id, within_s=15) for run_id in (*runs, later)]

    assert max(reply.took_s for reply in replies) < PROMPT_S
    assert {"succeeded"} == {row["status"] for row in rows}
    assert worker.alive
    assert [] == await rig.verdict()


async def test_a_slow_way_to_the_database_keeps_the_leases(rig: Rig) -> None:
    patient = {"lease_s": 8, "renew_s": 1, "self_fence_s": 6.5, "webhook_lease_s": 8}
    await rig.api(**patient)
    worker = await rig.worker(**patient)
    runs = await in_flight(rig, 4, model_of("slow-1000"))

    for proxy in rig.to_postgres.values():
        proxy.delay(0.5)
    replies = await asked_for(rig, 4, "f32")
    rows = [await rig.ended(run_id, within_s=20) for run_id in runs]
    for proxy in rig.to_postgres.values():
        await proxy.pass_on()

    assert {200, 500, 503} >= {reply.status for reply in replies}
    assert any(reply.accepted for reply in replies)
    assert max(reply.took_s for reply in replies) < PROMPT_S
    assert [("succeeded", 1)] * 4 == [(row["status"], row["claim_no"]) for row in rows]
    assert [] == [*worker.said("workers_lost"), *worker.said("session_was_reaped")]
    assert [] == await rig.verdict(within_s=30)


async def test_connections_ended_at_random_cost_no_run_and_no_second_call(rig: Rig) -> None:
    await rig.api()
    await rig.worker()
    chance = Random(33)

    asking = asyncio.create_task(asked_for(rig, 6, "f33"))
    while not asking.done():
        ours = [row["pid"] for row in await rig.rows(database.OURS)]
        if ours:
            await rig.rows("SELECT pg_terminate_backend(%s)", chance.choice(ours))
        await pause(0.15)
    replies = await asking

    assert {200, 500, 503} >= {reply.status for reply in replies}
    assert max(reply.took_s for reply in replies) < PROMPT_S
    assert len(replies) / 2 < sum(reply.accepted for reply in replies)
    assert [] == await rig.verdict()
    assert {1} == {len(rig.vendors.calls_of(call.run_id)) for call in rig.vendors.ledger}


async def test_a_flood_of_slow_requests_is_answered_and_stops_no_heart(rig: Rig) -> None:
    await rig.api()
    worker = await rig.worker()
    (run_id,) = await in_flight(rig, 1, model_of("slow-1000"))

    async with database.locked(rig, "runs", "ACCESS EXCLUSIVE"):
        replies = await asyncio.gather(
            *(rig.customer.get(f"/api/v1/runs/{run_id}") for _ in range(200))
        )
        leases = await rig.rows(
            "SELECT extract(epoch FROM lease_expires_at - now()) AS left FROM worker_sessions"
        )
    row = await rig.ended(run_id)

    assert {503} == {reply.status for reply in replies}
    assert all("retry-after" in reply.headers for reply in replies)
    assert max(reply.took_s for reply in replies) < PROMPT_S
    assert all(lease["left"] > 0 for lease in leases)
    assert ("succeeded", 1, []) == (row["status"], row["claim_no"], worker.said("workers_lost"))
    assert [] == await rig.verdict()


@pytest.mark.parametrize(
    ("table", "point"),
    [
        ("runs", "before_claim"),
        ("runs", "before_intent"),
        ("runs", "before_finish_commit"),
        ("delivery_tries", "after_delivery_200"),
    ],
)
async def test_a_crash_of_the_database_in_the_middle_of_a_statement_costs_no_second_call(
    rig: Rig, table: str, point: str
) -> None:
    await rig.api()
    patient = {"lease_s": 30, "self_fence_s": 25, "webhook_lease_s": 30, "lock_timeout_s": 20}
    stopped: Child | None = None
    if point != "before_claim":
        stopped = await rig.worker(crash_point=f"{point}:stop", **patient)
    run_id = await rig.customer.accepted(f"f28 in {point}", ANSWER)
    if stopped is not None:
        await stopped.frozen()

    async with database.locked(rig, table, "EXCLUSIVE"):
        if stopped is None:
            await rig.worker(**patient)
        else:
            stopped.thaw()
        await database.blocked(rig)
        await asyncio.to_thread(rig.servers.postgres.restart, "immediate")
    row = await rig.ended(run_id)

    assert [] == await rig.verdict()
    assert ("succeeded", 1) == (row["status"], row["claim_no"])
    assert 1 == len(rig.vendors.calls_of(run_id))


async def test_a_crash_between_a_delivery_s_claim_and_its_sending_only_delays_it(rig: Rig) -> None:
    rig.receiver.script("main", [500])
    await rig.api()
    worker = await rig.worker(crash_point="after_delivery_claim:stop", lease_s=30, self_fence_s=25)
    run_id = await rig.customer.accepted("f28 delivery", ANSWER)
    await worker.frozen()

    await asyncio.to_thread(rig.servers.postgres.restart, "immediate")
    worker.thaw()
    await rig.hooked(run_id, 2)

    assert [] == await rig.verdict()
    assert [500, 200] == [hook.status for hook in rig.receiver.hooks_of(run_id)]


async def test_a_claim_whose_answer_was_lost_is_given_back(rig: Rig) -> None:
    await rig.api()
    link = rig.to_postgres["worker"]
    cuts = link.cuts

    run_id = await rig.customer.accepted("f28 claim", ANSWER)
    link.lose_reply_to(UUID(run_id).hex.encode())
    worker = await rig.worker()
    row = await rig.ended(run_id, within_s=6 * LEASE_S)

    assert 1 == link.cuts - cuts
    assert 1 == len(worker.said("lost_claim"))
    assert ("succeeded", 2, 1) == (row["status"], row["claim_no"], len(row["tried"]))
    assert [] == await rig.verdict()
