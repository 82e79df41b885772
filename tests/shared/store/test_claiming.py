"""Claims and intents: who may run what, and who is told no."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import msgspec
import pytest
from msgspec import Raw

from shared.domain.states import Lane
from shared.ids import RunId, SessionId, new_id
from shared.store import claiming, ending
from shared.store.claiming import ClaimedRun, Later, Refusal, Unknown
from tests.shared.store.rig import Rig, a_rig, back, failed, intent

Make = Callable[[Rig], Awaitable[RunId]]


async def _waiting(rig: Rig) -> RunId:
    return await rig.queued()


async def _running(rig: Rig) -> RunId:
    return (await rig.claimed()).id


async def _succeeded(rig: Rig) -> RunId:
    return await rig.finished()


async def _canceled(rig: Rig) -> RunId:
    run_id = await rig.queued()
    await ending.cancel(rig.store, rig.tenant.workspace_id, run_id)
    return run_id


async def _stopping(rig: Rig) -> RunId:
    run_id = (await rig.claimed()).id
    await ending.cancel(rig.store, rig.tenant.workspace_id, run_id)
    return run_id


async def _unknown(rig: Rig) -> RunId:
    return RunId(uuid4())


async def _expired_unnoticed(rig: Rig) -> RunId:
    run_id = await rig.queued()
    await rig.change(run_id, "expires_at = now() - interval '1 s'")
    return run_id


async def _due_but_without_its_turn(rig: Rig) -> RunId:
    run_id = await rig.queued(turns=True, run_at="2999-01-01T00:00:00Z")
    await rig.change(run_id, "available_at = now() - interval '1 s'")
    return run_id


async def _behind_its_thread(rig: Rig) -> RunId:
    thread = str(new_id())
    await rig.queued(thread_id=thread, turns=True)
    return await rig.queued(thread_id=thread, turns=True)


@pytest.mark.parametrize(
    "make",
    [
        _running,
        _succeeded,
        _canceled,
        _stopping,
        _expired_unnoticed,
        _due_but_without_its_turn,
        _behind_its_thread,
    ],
)
async def test_what_cannot_start_is_dropped_from_a_claim(rig: Rig, make: Make) -> None:
    run_id = await make(rig)

    answer = await claiming.claim(rig.store, await rig.session(), [run_id])

    assert {run_id: None} == answer


async def test_an_id_without_a_run_is_told_apart(rig: Rig) -> None:
    run_id = await _unknown(rig)

    answer = await claiming.claim(rig.store, await rig.session(), [run_id])

    assert {run_id: Unknown()} == answer


async def test_claim_answers_once_for_every_id_of_a_mixed_batch(rig: Rig) -> None:
    makes = [_waiting, _running, _succeeded, _canceled, _stopping, _unknown, _behind_its_thread]
    ids = [await make(rig) for make in makes]

    answer = await claiming.claim(rig.store, await rig.session(), [*ids, *reversed(ids)])

    assert set(ids) == answer.keys()
    assert [ids[0]] == [run for run, found in answer.items() if isinstance(found, ClaimedRun)]


async def test_no_ids_are_answered_with_nothing(rig: Rig) -> None:
    assert {} == await claiming.claim(rig.store, await rig.session(), [])


async def test_a_claim_hands_over_all_that_executing_needs(rig: Rig) -> None:
    session = await rig.session()
    run_id = await rig.queued(
        priority="onsite", params='{"temperature":1}', traceparent="00-ab", model="sim/slow"
    )

    run = await rig.claim(session, run_id)

    assert (run_id, session, 1, Lane.ONSITE) == (run.id, run.session_id, run.claim_no, run.lane)
    assert rig.tenant.workspace_id == run.workspace_id
    assert rig.target.version_id == run.version_id
    assert ('{"name":"Ada"}', '{"temperature":1}') == (run.inputs, run.params)
    assert ("sim/slow", "00-ab", 0, 0, 3) == (
        run.model,
        run.traceparent,
        run.calls,
        run.attempts,
        run.max_attempts,
    )
    assert 3590 < run.seconds_left <= 3600
    assert (None, None, False) == (run.env_vars, run.turn, run.history_read)
    assert not run.server_credentials


async def test_a_claim_leaves_the_run_with_its_session_and_start(rig: Rig) -> None:
    run = await rig.claimed()

    row = await rig.row(run.id)
    assert ("running", str(run.session_id), 1) == (
        row["status"],
        row["session_id"],
        row["claim_no"],
    )
    assert row["started_at"] is not None


async def test_the_deadline_bounds_the_time_that_is_left(rig: Rig) -> None:
    run_id = await rig.queued(max_duration_s=3600)
    await rig.change(run_id, "deadline = now() + interval '60 s'")

    run = await rig.claim(await rig.session(), run_id)

    assert 55 < run.seconds_left <= 60


async def test_a_second_claim_counts_up_but_keeps_start_and_end(rig: Rig) -> None:
    first = await rig.claimed()
    before = await rig.row(first.id)
    await rig.settle(back(first))

    second = await rig.claim(await rig.session(), first.id)

    after = await rig.row(first.id)
    assert 2 == second.claim_no
    assert [before["started_at"], before["ends_at"]] == [after["started_at"], after["ends_at"]]


async def test_a_run_started_once_does_not_expire_in_the_queue(rig: Rig) -> None:
    first = await rig.claimed()
    await rig.settle(back(first))
    await rig.change(first.id, "expires_at = now() - interval '1 s'")

    second = await rig.claim(await rig.session(), first.id)

    assert 2 == second.claim_no


async def test_an_early_ring_is_answered_with_the_due_moment(rig: Rig) -> None:
    run = await rig.claimed()
    await rig.settle(back(run, delay_ms=5000))

    answer = (await claiming.claim(rig.store, await rig.session(), [run.id]))[run.id]

    assert isinstance(answer, Later)
    assert Lane.NORMAL == answer.lane
    (due,) = await rig.rows(
        "SELECT ceil(extract(epoch FROM available_at) * 1000)::bigint AS ms FROM runs"
    )
    assert due["ms"] == answer.due_ms


async def test_a_scheduled_run_starts_when_it_is_due_and_not_before(rig: Rig) -> None:
    run_id = await rig.queued(run_at="2999-01-01T00:00:00Z")
    session = await rig.session()
    early = (await claiming.claim(rig.store, session, [run_id]))[run_id]
    await rig.change(run_id, "available_at = now() - interval '1 ms'")

    due = (await claiming.claim(rig.store, session, [run_id]))[run_id]

    assert isinstance(early, Later)
    assert isinstance(due, ClaimedRun)


async def test_a_row_locked_by_another_is_asked_for_again_soon(rig: Rig) -> None:
    run_id, free = await rig.queued(), await rig.queued()
    other = await rig.store.connect_alone()
    async with other.transaction():
        await other.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", (run_id,))

        answer = await claiming.claim(rig.store, await rig.session(), [run_id, free])

    await other.close()
    locked = answer[run_id]
    assert isinstance(answer[free], ClaimedRun)
    assert isinstance(locked, Later)
    assert abs(locked.due_ms - 100 - time.time() * 1000) < 5000  # noqa: TID251 (beside the database's)


async def test_a_session_that_is_not_there_or_was_reaped_takes_nothing(rig: Rig) -> None:
    run_id = await rig.queued()
    dead = await rig.session()
    await rig.die(dead)

    for session in (SessionId(new_id()), dead):
        answer = (await claiming.claim(rig.store, session, [run_id]))[run_id]
        assert isinstance(answer, Later)
        assert [] == await claiming.claim_due(rig.store, session, Lane.NORMAL, 10)
    assert "queued" == await rig.status(run_id)


async def test_of_a_channel_only_the_smallest_live_turn_is_taken(rig: Rig) -> None:
    thread = str(new_id())
    ids = [await rig.queued(thread_id=thread, turns=True) for _ in range(3)]
    elsewhere = await rig.queued(thread_id=thread, turns=True, channel="aside")
    stateless = await rig.queued(thread_id=thread)

    answer = await claiming.claim(rig.store, await rig.session(), [*ids, elsewhere, stateless])

    taken = {run_id for run_id, found in answer.items() if isinstance(found, ClaimedRun)}
    assert {ids[0], elsewhere, stateless} == taken


async def test_threads_of_the_same_id_in_two_workspaces_do_not_wait_for_each_other(
    rig: Rig,
) -> None:
    thread = str(new_id())
    theirs = await a_rig(rig.deps)
    await theirs.queued(thread_id=thread, turns=True)
    mine = await rig.queued(thread_id=thread, turns=True)

    run = await rig.claim(await rig.session(), mine)

    assert 1 == run.turn


async def test_many_workers_claiming_the_same_ids_take_each_once(rig: Rig) -> None:
    ids = [await rig.queued() for _ in range(40)]
    workers = [await rig.session() for _ in range(8)]

    answers = await asyncio.gather(
        *(claiming.claim(rig.store, worker, ids[::step]) for worker in workers for step in (1, -1))
    )

    taken = [
        run_id
        for answer in answers
        for run_id, got in answer.items()
        if isinstance(got, ClaimedRun)
    ]
    assert sorted(ids) == sorted(taken)


async def test_without_redis_the_longest_due_of_a_lane_are_taken(rig: Rig) -> None:
    ids = [await rig.queued(priority="low") for _ in range(3)]
    for place, run_id in enumerate(ids):
        await rig.change(run_id, f"available_at = now() - interval '{place + 1} s'")
    await rig.queued(priority="onsite")

    taken = await claiming.claim_due(rig.store, await rig.session(), Lane.LOW, 2)

    assert {ids[2], ids[1]} == {run.id for run in taken}


# Intents


async def test_an_intent_writes_an_open_attempt_and_counts_the_call(rig: Rig) -> None:
    run = await rig.claimed()

    numbers = await claiming.intend(
        rig.store, [intent(run, messages=Raw(b'[{"role":"user"}]'), sha256="ab" * 32)]
    )

    (attempt,) = await rig.attempts(run.id)
    row = await rig.row(run.id)
    assert [1] == numbers
    assert (1, 1, None, "sim", "echo", str(run.session_id)) == (
        attempt["number"],
        attempt["claim_no"],
        attempt["outcome"],
        attempt["provider"],
        attempt["model"],
        attempt["session_id"],
    )
    assert (1, 1, [{"role": "user"}], "\\x" + "ab" * 32) == (
        row["calls"],
        row["attempts"],
        row["messages"],
        row["messages_sha256"],
    )


async def test_intents_of_a_batch_are_answered_in_their_order(rig: Rig) -> None:
    fresh, again = await rig.claimed(), await rig.called()
    await rig.settle(back(again))
    again = await rig.claim(await rig.session(), again.id)
    gone = await rig.claimed()
    await rig.settle(back(gone))

    answers = await claiming.intend(rig.store, [intent(gone), intent(again), intent(fresh)])

    assert [Refusal("lost"), 2, 1] == answers


async def test_an_intent_of_an_older_claim_or_another_session_is_refused(rig: Rig) -> None:
    old = await rig.claimed()
    await rig.settle(back(old))
    run = await rig.claim(await rig.session(), old.id)

    answers = [
        await rig.intend(old),
        (await claiming.intend(rig.store, [intent(run, session_id=str(new_id()))]))[0],
        (await claiming.intend(rig.store, [intent(run, claim_no=3)]))[0],
        (await claiming.intend(rig.store, [intent(run, run_id=str(uuid4()))]))[0],
    ]

    assert [Refusal("lost")] * 4 == answers
    assert [] == await rig.attempts(run.id)
    assert 0 == (await rig.row(run.id))["calls"]


async def test_two_claims_of_one_run_in_a_batch_are_told_apart(rig: Rig) -> None:
    old = await rig.claimed()
    await rig.settle(back(old))
    run = await rig.claim(await rig.session(), old.id)

    answers = await claiming.intend(rig.store, [intent(run), intent(old)])

    assert [1, Refusal("lost")] == answers
    assert 1 == len(await rig.attempts(run.id))


async def test_an_intent_after_a_cancel_request_is_refused(rig: Rig) -> None:
    run = await rig.claimed()
    await ending.cancel(rig.store, rig.tenant.workspace_id, run.id)

    assert Refusal("canceled") == await rig.intend(run)
    assert [] == await rig.attempts(run.id)


async def test_an_intent_that_waits_for_a_cancel_is_told_of_it(rig: Rig) -> None:
    run = await rig.claimed()
    other = await rig.store.connect_alone()
    async with other.transaction():
        await other.execute("UPDATE runs SET cancel_requested_at = now() WHERE id = %s", (run.id,))
        waiting = asyncio.create_task(rig.intend(run))
        await rig.blocked()

    await other.close()
    assert Refusal("canceled") == await waiting


async def test_an_intent_beyond_the_allowed_calls_is_refused(rig: Rig) -> None:
    run = await rig.claimed(max_attempts=1)
    await rig.intend(run)
    await rig.settle(back(run, attempt=1, outcome="server_error", billed="no"))
    run = await rig.claim(await rig.session(), run.id)

    assert Refusal("exhausted") == await rig.intend(run)
    assert 1 == len(await rig.attempts(run.id))


async def test_a_call_that_was_never_sent_is_given_back(rig: Rig) -> None:
    run = await rig.claimed(max_attempts=1)
    for number in (1, 2, 3):
        assert number == await rig.intend(run)
        await rig.settle(back(run, attempt=number, outcome="not_sent", billed="no", uncounted=1))
        run = await rig.claim(await rig.session(), run.id)

    row = await rig.row(run.id)
    assert (0, 3) == (row["calls"], row["attempts"])


async def test_a_reaped_session_announces_no_call(rig: Rig) -> None:
    run = await rig.claimed()
    await rig.die(run.session_id)

    assert Refusal("lost") == await rig.intend(run)


async def test_the_same_intent_again_is_the_same_attempt(rig: Rig) -> None:
    run = await rig.claimed(max_attempts=1)

    assert [1, 1] == [await rig.intend(run), await rig.intend(run)]
    assert (1, 1) == ((await rig.row(run.id))["calls"], len(await rig.attempts(run.id)))


async def test_an_intent_repeated_while_the_first_is_under_way_is_one_attempt(rig: Rig) -> None:
    """The connection of the first was lost, and its statement goes on without anyone listening."""
    run = await rig.claimed()
    other = await rig.store.connect_alone()
    async with other.transaction():
        await other.execute("SELECT FROM runs WHERE id = %s FOR UPDATE", (run.id,))
        first = asyncio.create_task(rig.intend(run))
        await rig.blocked()
        second = asyncio.create_task(rig.intend(run))
        await rig.blocked(2)

    await other.close()
    assert [1, 1] == [await first, await second]
    assert 1 == len(await rig.attempts(run.id))


async def test_an_announced_call_stays_announced_when_a_cancel_is_requested(rig: Rig) -> None:
    run = await rig.called()
    await ending.cancel(rig.store, rig.tenant.workspace_id, run.id)

    assert 1 == await rig.intend(run)


async def test_an_attempt_of_another_claim_is_not_taken_for_mine(rig: Rig) -> None:
    old = await rig.called()
    await rig.settle(failed(old))

    assert Refusal("lost") == await rig.intend(old)


async def test_what_a_run_has_tried_comes_with_its_next_claim_and_with_no_first_one(
    rig: Rig,
) -> None:
    run = await rig.called()
    cost = b'{"input":0.5,"cachedInput":0,"cacheWrite":0,"output":0,"webSearch":0,"total":0.5}'
    error = {"outcome": "server_error", "attempt_error_code": "provider_server_error"}
    await rig.settle(back(run, attempt=1, billed="yes", attempt_cost=Raw(cost), **error))

    again = await rig.claim(await rig.session(), run.id)

    assert run.tried is None
    assert again.tried is not None
    assert [
        {
            "provider": "sim",
            "model": "echo",
            "outcome": "server_error",
            "error_code": "provider_server_error",
            "cost": msgspec.json.decode(cost),
            "unpriced": False,
            "miss": None,
        }
    ] == msgspec.json.decode(again.tried)
    assert again.claim_no == 2
