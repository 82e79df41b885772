"""PostgreSQL is there and says no: it only reads, somebody holds a table, transactions collide."""

import asyncio

import pytest

from tests.faults import database
from tests.faults.client import Reply
from tests.faults.rig import LEASE_S, Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
PROMPT_S = 3.0


async def test_a_server_that_only_reads_takes_nothing_and_loses_nothing(rig: Rig) -> None:
    await rig.api()
    worker = await rig.worker()
    runs = [await rig.customer.accepted(f"f34 {n}", model_of("slow-700")) for n in range(4)]
    for run_id in runs:
        await rig.called(run_id)

    async with database.configured(rig, default_transaction_read_only="on"):
        refused = await until(lambda: _refused(rig), "submissions are refused")
        await worker.says("renewal_failed")
        await pause(0.7)
    later = await until(lambda: _accepted(rig, "f34 later"), "submissions are taken", within_s=5)
    rows = [await rig.ended(run_id) for run_id in (*runs, later)]

    assert (503, "2") == (refused.status, refused.headers["retry-after"])
    assert refused.took_s < PROMPT_S
    assert [("succeeded", 1)] * 5 == [(row["status"], row["claim_no"]) for row in rows]
    assert [1] * 4 == [len(rig.vendors.calls_of(run_id)) for run_id in runs]
    assert [] == worker.said("workers_lost")
    assert [] == await rig.verdict()


async def test_a_table_that_somebody_holds_stops_no_heart_and_keeps_nobody_waiting(
    rig: Rig,
) -> None:
    await rig.api()
    worker = await rig.worker()
    under_way = await rig.customer.accepted("f35 under way", model_of("slow-1000"))
    await rig.called(under_way)

    async with database.locked(rig, "runs", "ACCESS EXCLUSIVE"):
        replies = await asyncio.gather(
            *(rig.customer.submit(f"f35 {n}", ANSWER, key=f"f35 {n}") for n in range(30)),
            *(rig.customer.submit(f"f35 free {n}", ANSWER) for n in range(30)),
        )
        await pause(1.5 * LEASE_S)
    again = await rig.customer.accepted("f35 again", ANSWER)
    row = await rig.ended(under_way)
    await rig.ended(again)

    assert {409, 503} >= {reply.status for reply in replies}
    assert all("retry-after" in reply.headers for reply in replies)
    assert max(reply.took_s for reply in replies) < PROMPT_S
    assert ("succeeded", 1, 1) == (row["status"], row["claim_no"], len(row["tried"]))
    assert [] == [*worker.said("workers_lost"), *worker.said("session_was_reaped")]
    assert [] == await rig.verdict()
    ours = await rig.rows(database.OURS)
    assert len(ours) <= 10 + 4 + 2
    assert not [one for one in ours if str(one["state"]).startswith("idle in transaction")]


async def test_transactions_that_collide_are_repeated_until_they_pass(rig: Rig) -> None:
    await rig.api()
    doomed = await rig.worker(slots=10, lane_floors="[0,0,0]")
    customer = rig.customer
    steps = "slow-300", "slow-600", "slow-900"
    stuck = [await customer.accepted(f"f36 stuck {n}", model_of("hang", "answer")) for n in "ab"]
    for run_id in stuck:
        await rig.called(run_id)

    async with database.configured(
        rig, default_transaction_isolation="repeatable read", deadlock_timeout="50ms"
    ):
        await rig.worker()
        runs = [await customer.accepted(f"f36 {n}", model_of(steps[n % 3])) for n in range(45)]
        await doomed.kill()
        for run_id in runs:
            await rig.called(run_id)
        replies = await asyncio.gather(
            *(_canceled(rig, run_id) for run_id in runs[::2]),
            *(_crossed(rig, runs[n], runs[n + 1]) for n in range(0, 40, 4)),
        )
        rows = [await rig.ended(run_id) for run_id in (*runs, *stuck)]

    assert {200, 202} >= {status for status in replies if status is not None}
    assert {"succeeded", "canceled"} >= {row["status"] for row in rows}
    assert [] == await rig.verdict()


async def test_a_server_without_connections_left_is_put_up_with(rig: Rig) -> None:
    api = await rig.api()
    worker = await rig.worker()
    async with database.configured(rig, max_connections="12"):
        await asyncio.to_thread(rig.servers.postgres.restart)
        async with database.crowded(rig):
            crowded = [await rig.customer.submit(f"f39 {n}", ANSWER, key=f"{n}") for n in range(4)]
            await asyncio.to_thread(rig.servers.postgres.restart, "immediate")
        few = await until(lambda: _accepted(rig, "f39 few"), "some connections do", within_s=8)
        await rig.ended(few)
    await asyncio.to_thread(rig.servers.postgres.restart)
    later = await until(lambda: _accepted(rig, "f39 later"), "all is well again", within_s=8)
    await rig.ended(later)

    assert {200, 503, 500} >= {reply.status for reply in crowded}
    assert max(reply.took_s for reply in crowded) < PROMPT_S
    assert (api.alive, worker.alive) == (True, True)
    assert [] == worker.said("workers_lost")
    assert [] == await rig.verdict()


async def _canceled(rig: Rig, run_id: str) -> int:
    """Cancel for as long as it is refused; answers the last status."""

    async def ask() -> int | None:
        reply = await rig.customer.post(f"/api/v1/runs/{run_id}/cancel", {})
        return None if reply.status == 503 else reply.status

    return await until(ask, f"{run_id} may be canceled")


async def _crossed(rig: Rig, first: str, second: str) -> None:
    """Lock two runs in the order in which no statement of ours does."""
    async with await database.connected(rig) as connection, connection.transaction():
        for run_id in (second, first):
            await connection.execute("SELECT FROM runs WHERE id = %s FOR UPDATE", (run_id,))
            await pause(0.1)


async def _refused(rig: Rig) -> Reply | None:
    reply = await rig.customer.submit("f34 refused", ANSWER)
    return None if reply.accepted else reply


async def _accepted(rig: Rig, case: str) -> str | None:
    reply = await rig.customer.submit(case, ANSWER, key=case)
    return reply.run_id if reply.accepted else None
