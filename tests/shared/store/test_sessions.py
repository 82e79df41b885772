"""Worker sessions: leases, cancel news, and what becomes of the runs of the dead."""

import asyncio
from random import Random
from uuid import uuid4

import pytest

from shared.domain.states import Lane
from shared.ids import RunId, SessionId, new_id
from shared.store import claiming, ending, sessions
from shared.store.sessions import Reaped
from tests.shared.store.rig import LEASE_IS_OVER, Rig, back, base64, intent, outcome

SINCE_EVER_S = 10_000_000.0


async def _renew(rig: Rig, session: SessionId, lease_s: float = 600) -> list[RunId] | None:
    connection = await rig.store.connect_alone()
    try:
        renewed = await sessions.renew(connection, session, lease_s=lease_s)
        return await sessions.canceled(connection, session) if renewed else None
    finally:
        await connection.close()


async def _reap(rig: Rig, poison_deaths: int = 3) -> list[Reaped]:
    return await sessions.reap(rig.store, poison_deaths=poison_deaths)


async def _sessions(rig: Rig) -> set[str]:
    return {row["id"] for row in await rig.rows("SELECT id FROM worker_sessions")}


# Leases


async def test_a_renewal_prolongs_the_lease_and_brings_cancel_requests(rig: Rig) -> None:
    run = await rig.claimed()
    quiet = await _renew(rig, run.session_id, lease_s=1000)
    await ending.cancel(rig.store, rig.tenant.workspace_id, run.id)

    asked = await _renew(rig, run.session_id, lease_s=1000)

    (row,) = await rig.rows(
        "SELECT extract(epoch FROM lease_expires_at - now())::int AS left FROM worker_sessions"
    )
    assert ([], [run.id]) == (quiet, asked)
    assert 990 < row["left"] <= 1000


async def test_an_overdue_lease_that_nobody_noticed_revives(rig: Rig) -> None:
    session = await rig.session()
    await rig.run(LEASE_IS_OVER, id=session)

    assert [] == await _renew(rig, session)
    assert [] == await sessions.mark_dead(rig.store, lease_s=0)


async def test_a_reaped_session_does_not_come_back(rig: Rig) -> None:
    session = await rig.session()
    await rig.die(session)

    assert await _renew(rig, session) is None
    assert await _renew(rig, SessionId(new_id())) is None


async def test_after_the_servers_start_one_lease_has_to_pass(rig: Rig) -> None:
    session = await rig.session()
    await rig.run(LEASE_IS_OVER, id=session)

    graced = await sessions.mark_dead(rig.store, lease_s=SINCE_EVER_S)

    assert [] == graced
    assert [session] == await sessions.mark_dead(rig.store, lease_s=0)


async def test_the_living_are_not_declared_dead(rig: Rig) -> None:
    alive, dead = await rig.session(), await rig.session()
    await rig.run(LEASE_IS_OVER, id=dead)

    assert [dead] == await sessions.mark_dead(rig.store, lease_s=0)
    assert [] == await _renew(rig, alive)


async def test_who_renews_at_the_very_moment_lives(rig: Rig) -> None:
    session = await rig.session()
    await rig.run(LEASE_IS_OVER, id=session)
    renewing = await rig.store.connect_alone()
    async with renewing.transaction():
        await sessions.renew(renewing, session, lease_s=600)

        dead = await sessions.mark_dead(rig.store, lease_s=0)

    await renewing.close()
    assert [] == dead
    assert [] == await sessions.mark_dead(rig.store, lease_s=0)


async def test_a_session_that_holds_runs_stays_for_the_reaper(rig: Rig) -> None:
    run = await rig.claimed()
    idle = await rig.session()

    await sessions.close_session(rig.store, run.session_id)
    await sessions.close_session(rig.store, idle)

    assert {str(run.session_id)} == await _sessions(rig)


async def test_dead_sessions_are_forgotten_after_an_hour_unless_they_hold_runs(rig: Rig) -> None:
    holding = (await rig.claimed()).session_id
    idle, recent = await rig.session(), await rig.session()
    for session in (holding, idle, recent):
        await rig.die(session)
    await rig.run(
        "UPDATE worker_sessions SET reaped_at = now() - interval '61 min' WHERE id <> %(id)s",
        id=recent,
    )

    await sessions.forget(rig.store)

    assert {str(holding), str(recent)} == await _sessions(rig)


# The reaper


async def test_a_run_without_a_call_goes_back_to_the_queue(rig: Rig) -> None:
    run = await rig.claimed(priority="onsite", env_vars=base64(b"sealed"))
    await rig.die(run.session_id)

    reaped = await _reap(rig)

    row = await rig.row(run.id)
    assert [Reaped(run.id, "queued", Lane.ONSITE, None)] == reaped
    assert ("queued", None, 1, 0, None) == (
        row["status"],
        row["session_id"],
        row["deaths"],
        row["calls"],
        row["last_error"],
    )
    assert row["env_vars"] is not None
    assert [] == await _reap(rig)


async def test_a_call_under_way_is_lost_and_tried_again(rig: Rig) -> None:
    run = await rig.called()
    await rig.die(run.session_id)

    (reaped,) = await _reap(rig)

    row, (attempt,) = await rig.row(run.id), await rig.attempts(run.id)
    assert "queued" == reaped.status
    assert ("lost", "unknown", "worker_lost", False) == (
        attempt["outcome"],
        attempt["billed"],
        attempt["error_code"],
        attempt["late"],
    )
    assert (1, "The worker was lost during the call.") == (row["calls"], row["last_error"])


async def test_under_fail_an_unknown_call_ends_the_run(rig: Rig) -> None:
    run = await rig.called(on_unknown_outcome="fail", env_vars=base64(b"sealed"))
    await rig.die(run.session_id)

    (reaped,) = await _reap(rig)

    row, (event,) = await rig.row(run.id), await rig.events(run.id)
    assert ("failed", "failed", "outcome_unknown", "platform", None) == (
        reaped.status,
        row["status"],
        row["error_code"],
        row["error_origin"],
        row["env_vars"],
    )
    assert ("run.failed", "outcome_unknown") == (
        event["type"],
        event["data"]["run"]["error"]["code"],
    )


async def test_under_fail_a_run_without_a_call_is_tried_again(rig: Rig) -> None:
    run = await rig.claimed(on_unknown_outcome="fail")
    await rig.die(run.session_id)

    assert ["queued"] == [reaped.status for reaped in await _reap(rig)]


async def test_the_last_allowed_call_lost_ends_the_run(rig: Rig) -> None:
    run = await rig.called(max_attempts=1)
    await rig.die(run.session_id)

    await _reap(rig)

    row = await rig.row(run.id)
    assert ("failed", "attempts_exhausted") == (row["status"], row["error_code"])


async def test_a_closed_attempt_of_an_older_claim_is_not_lost_again(rig: Rig) -> None:
    run = await rig.called(on_unknown_outcome="fail")
    await rig.settle(back(run, attempt=1, outcome="server_error", billed="no"))
    run = await rig.claim(await rig.session(), run.id)
    await rig.die(run.session_id)

    (reaped,) = await _reap(rig)

    (attempt,) = await rig.attempts(run.id)
    assert ("queued", "server_error") == (reaped.status, attempt["outcome"])


async def test_a_run_that_kills_its_workers_fails_at_the_third(rig: Rig) -> None:
    run_id = await rig.queued()
    statuses = []
    for _ in range(3):
        run = await rig.claim(await rig.session(), run_id)
        await rig.die(run.session_id)
        statuses += [reaped.status for reaped in await _reap(rig)]

    row = await rig.row(run_id)
    assert ["queued", "queued", "failed"] == statuses
    assert ("worker_crashed_repeatedly", 3) == (row["error_code"], row["deaths"])
    assert 1 == len(await rig.events(run_id))


async def test_a_run_asked_to_stop_is_canceled_by_the_reaper(rig: Rig) -> None:
    run = await rig.called(env_vars=base64(b"sealed"))
    await ending.cancel(rig.store, rig.tenant.workspace_id, run.id)
    await rig.die(run.session_id)

    (reaped,) = await _reap(rig)

    row, (attempt,), (event,) = (
        await rig.row(run.id),
        await rig.attempts(run.id),
        await rig.events(run.id),
    )
    assert ("canceled", "canceled", None, "lost", "run.canceled") == (
        reaped.status,
        row["status"],
        row["env_vars"],
        attempt["outcome"],
        event["type"],
    )


async def test_a_reaped_end_names_the_next_turn(rig: Rig) -> None:
    thread = str(new_id())
    first = await rig.queued(thread_id=thread, turns=True, on_unknown_outcome="fail")
    second = await rig.queued(thread_id=thread, turns=True)
    run = await rig.claim(await rig.session(), first)
    await rig.intend(run)
    await rig.die(run.session_id)

    (reaped,) = await _reap(rig)

    assert (second, Lane.NORMAL) == reaped.next_turn


async def test_a_reaped_end_is_delivered_by_anyone(rig: Rig) -> None:
    await rig.endpoint()
    run = await rig.called(on_unknown_outcome="fail")
    await rig.die(run.session_id)

    await _reap(rig)

    assert ["pending"] == [delivery["status"] for delivery in await rig.deliveries()]


async def test_runs_of_living_workers_and_locked_ones_are_left_alone(rig: Rig) -> None:
    living, locked = await rig.called(), await rig.called()
    await rig.die(locked.session_id)
    other = await rig.store.connect_alone()
    async with other.transaction():
        await other.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", (locked.id,))

        while_locked = await _reap(rig)

    await other.close()
    assert [] == while_locked
    assert [locked.id] == [reaped.run_id for reaped in await _reap(rig)]
    assert "running" == await rig.status(living.id)


async def test_a_call_announced_while_reaping_began_is_left_for_the_next_time(rig: Rig) -> None:
    run = await rig.claimed(on_unknown_outcome="fail")
    await rig.die(run.session_id)
    await rig.change(run.id, "attempts = 1, calls = 1")  # as the reaper sees it: no row yet

    too_early = await _reap(rig)
    await rig.run(
        "INSERT INTO attempts (run_id, number, workspace_id, claim_no, session_id, provider, model)"
        " VALUES (%(run)s, 1, %(workspace)s, 1, %(session)s, 'sim', 'echo')",
        run=run.id,
        workspace=rig.tenant.workspace_id,
        session=run.session_id,
    )

    assert [] == too_early
    assert ["failed"] == [reaped.status for reaped in await _reap(rig)]


async def test_a_death_never_passes_for_a_call_never_made(rig: Rig) -> None:
    random = Random(11)
    for _ in range(30):
        runs = [await rig.claimed(on_unknown_outcome="fail") for _ in range(3)]
        for run in runs:
            await rig.run(LEASE_IS_OVER, id=run.session_id)
        steps = [
            claiming.intend(rig.store, [intent(run) for run in random.sample(runs, 3)]),
            sessions.mark_dead(rig.store, lease_s=0),
            *(_reap(rig) for _ in range(3)),
        ]
        random.shuffle(steps)
        await asyncio.gather(*steps)

    await _reap(rig)
    open_ones = await rig.rows(
        "SELECT r.id FROM runs r JOIN attempts a ON a.run_id = r.id"
        " WHERE r.status <> 'failed' OR a.outcome IS DISTINCT FROM 'lost'"
    )
    assert [] == open_ones


async def test_two_reapers_do_no_run_twice(rig: Rig) -> None:
    runs = [await rig.called() for _ in range(20)]
    for run in runs:
        await rig.run(LEASE_IS_OVER, id=run.session_id)
    await sessions.mark_dead(rig.store, lease_s=0)

    reaped = await asyncio.gather(*(_reap(rig) for _ in range(4)))

    assert sorted(run.id for run in runs) == sorted(run.run_id for one in reaped for run in one)
    assert {1} == {row["deaths"] for row in await rig.rows("SELECT deaths FROM runs")}


@pytest.mark.parametrize("known", [True, False])
async def test_a_worker_back_from_the_dead_finishes_only_what_is_still_its_own(
    rig: Rig, *, known: bool
) -> None:
    run = await rig.called()
    await rig.die(run.session_id)
    if known:
        await _reap(rig)

    (moved,) = await rig.settle(outcome(run))

    assert known != moved.applied
    assert ("queued" if known else "succeeded") == await rig.status(run.id)


async def test_an_unknown_run_has_no_owner_to_lose(rig: Rig) -> None:
    await rig.run(
        "INSERT INTO worker_sessions (id, host, pid, lease_expires_at, reaped_at)"
        " VALUES (%(id)s, 'here', 1, now(), now())",
        id=uuid4(),
    )

    assert [] == await _reap(rig)
