"""Ends and ways back: what a settlement writes, whom it refuses, and what it leaves behind."""

import asyncio
from base64 import b64decode
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from shared.domain.states import TERMINAL, Lane
from shared.ids import RunId, WorkspaceId, new_id
from shared.store import claiming, ending, sessions
from shared.store.claiming import ClaimedRun
from shared.store.run_json import EVENT_BYTES, OUTPUT_INLINE_BYTES
from tests.shared.store.rig import (
    LEASE_IS_OVER,
    Rig,
    applied,
    back,
    base64,
    failed,
    intent,
    outcome,
)


async def _cancel(rig: Rig, run_id: RunId) -> tuple[str, tuple[RunId, Lane] | None] | None:
    return await ending.cancel(rig.store, rig.tenant.workspace_id, run_id)


# What a settlement writes


async def test_a_finish_closes_run_and_attempt_and_tells_of_it_once(rig: Rig) -> None:
    run = await rig.called(env_vars=base64(b"sealed"))

    (moved,) = await rig.settle(
        outcome(
            run,
            token_usage=Raw(b'{"total":3}'),
            cost=Raw(b'{"total":0.1}'),
            cost_nanousd=100_000_000,
            usage=Raw(b'{"total":3}'),
            usage_raw='{"total_tokens":3}',
            provider_request_id="req_1",
        )
    )

    row, (attempt,), (event,) = (
        await rig.row(run.id),
        await rig.attempts(run.id),
        await rig.events(run.id),
    )
    assert (True, False, "succeeded", ()) == (
        moved.applied,
        moved.known,
        moved.status,
        moved.deliveries,
    )
    assert ("succeeded", "Hello", None, None, {"total": 3}, 100_000_000) == (
        row["status"],
        row["output"],
        row["session_id"],
        row["env_vars"],
        row["token_usage"],
        row["cost_nanousd"],
    )
    assert row["finished_at"] == attempt["finished_at"]
    assert ("succeeded", "yes", False, None, "req_1") == (
        attempt["outcome"],
        attempt["billed"],
        attempt["late"],
        attempt["late_output"],
        attempt["provider_request_id"],
    )
    assert ("run.succeeded", "production", "Hello") == (
        event["type"],
        event["environment"],
        event["data"]["run"]["output"],
    )


async def test_a_retry_waits_in_the_queue_with_its_reason_and_its_secrets(rig: Rig) -> None:
    run = await rig.called(env_vars=base64(b"sealed"))

    (moved,) = await rig.settle(
        back(
            run,
            attempt=1,
            outcome="server_error",
            billed="no",
            delay_ms=60_000,
            status_reason="retry_backoff",
            last_error="Try later.",
            attempt_error_code="provider_server_error",
            attempt_error="Try later.",
        )
    )

    row, (attempt,) = await rig.row(run.id), await rig.attempts(run.id)
    (due,) = await rig.rows(
        "SELECT extract(epoch FROM available_at - now())::float8 AS s,"
        " ceil(extract(epoch FROM available_at) * 1000)::bigint AS ms FROM runs"
    )
    assert (True, "queued", Lane.NORMAL, due["ms"]) == (
        moved.applied,
        moved.status,
        moved.lane,
        moved.due_ms,
    )
    assert 55 < due["s"] <= 60
    assert ("queued", "retry_backoff", None, None, "Try later.", 1) == (
        row["status"],
        row["status_reason"],
        row["finished_at"],
        row["session_id"],
        row["last_error"],
        row["calls"],
    )
    assert row["env_vars"] is not None
    assert ("server_error", "provider_server_error") == (attempt["outcome"], attempt["error_code"])
    assert [] == await rig.events(run.id)


async def test_outcomes_of_a_batch_are_answered_in_their_order(rig: Rig) -> None:
    runs = [await rig.called() for _ in range(4)]
    stranger = outcome(runs[0], run_id=str(new_id()))

    moved = await rig.settle(
        outcome(runs[3]), failed(runs[0]), stranger, back(runs[2], delay_ms=5), outcome(runs[1])
    )

    assert ["succeeded", "failed", None, "queued", "succeeded"] == [one.status for one in moved]
    assert [str(runs[3].id), str(runs[0].id), stranger.run_id] == [
        str(one.run_id) for one in moved[:3]
    ]


# Fencing


async def test_only_the_current_claim_of_the_right_session_settles(rig: Rig) -> None:
    run = await rig.called()
    before = await rig.row(run.id), await rig.attempts(run.id)

    moved = await rig.settle(outcome(run, claim_no=2), outcome(run, session_id=str(new_id())))

    assert [False, False] == applied(moved)
    assert before == (await rig.row(run.id), await rig.attempts(run.id))
    assert [] == await rig.events(run.id)


async def test_a_late_result_is_kept_on_its_own_attempt_and_changes_nothing_else(
    rig: Rig,
) -> None:
    late = await rig.called()
    await rig.die(late.session_id)
    await sessions.reap(rig.store, poison_deaths=3)
    run = await rig.claim(await rig.session(), late.id)
    await rig.intend(run)
    before = await rig.row(run.id)

    (moved,) = await rig.settle(
        outcome(late, attempt_cost=Raw(b'{"total":0.1}'), attempt_cost_nanousd=5, output="Late")
    )

    first, second = await rig.attempts(run.id)
    assert (False, False) == (moved.applied, moved.known)
    assert before == await rig.row(run.id)
    assert ("succeeded", "yes", True, "Late", 5) == (
        first["outcome"],
        first["billed"],
        first["late"],
        first["late_output"],
        first["cost_nanousd"],
    )
    assert (None, False) == (second["outcome"], second["late"])


async def test_a_late_result_after_the_end_leaves_the_end_alone(rig: Rig) -> None:
    late = await rig.called()
    await rig.die(late.session_id)
    await sessions.reap(rig.store, poison_deaths=3)
    run = await rig.claim(await rig.session(), late.id)
    await rig.intend(run)
    await rig.settle(outcome(run, attempt=2, output="On time"))
    before = await rig.row(run.id)

    moved = await rig.settle(outcome(late, output="Late"), outcome(late, output="Later still"))

    first, _ = await rig.attempts(run.id)
    assert [False, False] == applied(moved)
    assert before == await rig.row(run.id)
    assert 1 == len(await rig.events(run.id))
    assert first["late"]


async def test_a_finish_whose_commit_was_lost_is_recognised(rig: Rig) -> None:
    run = await rig.called()
    await rig.settle(outcome(run))
    before = await rig.row(run.id)

    (moved,) = await rig.settle(outcome(run))

    assert (False, True) == (moved.applied, moved.known)
    assert before == await rig.row(run.id)
    assert 1 == len(await rig.events(run.id))


async def test_a_different_end_than_the_one_written_is_not_recognised(rig: Rig) -> None:
    run = await rig.called()
    await rig.settle(failed(run))

    (moved,) = await rig.settle(outcome(run))

    (attempt,) = await rig.attempts(run.id)
    assert (False, False) == (moved.applied, moved.known)
    assert ("refused", None) == (attempt["outcome"], attempt["late_output"])


async def test_two_claims_of_one_run_in_a_batch_are_told_apart(rig: Rig) -> None:
    await rig.endpoint()
    late = await rig.called()
    await rig.die(late.session_id)
    await sessions.reap(rig.store, poison_deaths=3)
    run = await rig.claim(await rig.session(), late.id)
    await rig.intend(run)

    moved = await rig.settle(
        outcome(late, output="Late"), outcome(run, attempt=2), outcome(late, output="Late")
    )

    first, second = await rig.attempts(run.id)
    assert [False, True, False] == applied(moved)
    assert [0, 1, 0] == [len(one.deliveries) for one in moved]
    assert [(True, "Late"), (False, None)] == [
        (attempt["late"], attempt["late_output"]) for attempt in (first, second)
    ]
    assert "Hello" == (await rig.row(run.id))["output"]


# Cancels


async def test_a_waiting_run_is_canceled_at_once_for_nothing(rig: Rig) -> None:
    run_id = await rig.queued(env_vars=base64(b"sealed"))

    answer = await _cancel(rig, run_id)

    row, (event,) = await rig.row(run_id), await rig.events(run_id)
    assert ("canceled", None) == answer
    assert ("canceled", None, None) == (row["status"], row["env_vars"], row["cost"])
    assert ("run.canceled", 0) == (event["type"], event["data"]["run"]["cost"]["total"])


async def test_a_running_run_is_only_asked_to_stop(rig: Rig) -> None:
    run = await rig.called()

    answers = [await _cancel(rig, run.id), await _cancel(rig, run.id)]

    assert [("running", None)] * 2 == answers
    assert [] == await rig.events(run.id)
    assert await rig.status(run.id) == "running"


async def test_a_second_request_keeps_the_moment_of_the_first(rig: Rig) -> None:
    run = await rig.called()
    await _cancel(rig, run.id)
    first = (await rig.row(run.id))["cancel_requested_at"]

    await _cancel(rig, run.id)

    assert first == (await rig.row(run.id))["cancel_requested_at"]


async def test_what_is_over_unknown_or_foreign_is_not_canceled(rig: Rig) -> None:
    done, waiting = await rig.finished(), await rig.queued()
    before = await rig.row(done)

    answers = [
        await _cancel(rig, done),
        await _cancel(rig, RunId(new_id())),
        await ending.cancel(rig.store, WorkspaceId(new_id()), waiting),
    ]

    assert [None] * 3 == answers
    assert before == await rig.row(done)
    assert "queued" == await rig.status(waiting)


async def test_a_run_asked_to_stop_does_not_go_back_to_the_queue(rig: Rig) -> None:
    run = await rig.called(env_vars=base64(b"sealed"))
    await _cancel(rig, run.id)

    (moved,) = await rig.settle(
        back(run, attempt=1, outcome="server_error", billed="no", status_reason="retry_backoff")
    )

    row, (event,) = await rig.row(run.id), await rig.events(run.id)
    assert (True, "canceled") == (moved.applied, moved.status)
    assert ("canceled", None, None) == (row["status"], row["status_reason"], row["env_vars"])
    assert "run.canceled" == event["type"]


async def test_a_result_in_hand_wins_over_a_cancel(rig: Rig) -> None:
    run = await rig.called()
    await _cancel(rig, run.id)

    (moved,) = await rig.settle(outcome(run))

    assert "succeeded" == moved.status
    assert "Hello" == (await rig.row(run.id))["output"]


async def test_a_settlement_that_waits_for_a_cancel_obeys_it(rig: Rig) -> None:
    run = await rig.called()
    other = await rig.store.connect_alone()
    async with other.transaction():
        await other.execute("UPDATE runs SET cancel_requested_at = now() WHERE id = %s", (run.id,))
        settling = asyncio.create_task(rig.settle(back(run)))
        await rig.blocked()

    await other.close()
    assert ["canceled"] == [moved.status for moved in await settling]


@pytest.mark.parametrize("block", range(8))
async def test_cancels_finishes_claims_and_reaps_in_any_order_leave_one_end(
    rig: Rig, block: int
) -> None:
    for seed in range(block * 25, block * 25 + 25):
        await _race(rig, Random(seed))

    runs = await rig.rows(
        "SELECT r.*, (SELECT json_agg(v.type) FROM events v WHERE v.run_id = r.id) AS told,"
        " (SELECT count(*) FROM attempts a WHERE a.run_id = r.id) AS rows,"
        " (SELECT count(*) FROM attempts a WHERE a.run_id = r.id AND a.outcome IS NULL) AS open"
        " FROM runs r"
    )
    assert 25 * 3 == len(runs)
    for run in runs:
        assert run["told"] == ([f"run.{run['status']}"] if run["status"] in TERMINAL else None)
        assert run["rows"] == run["attempts"]
        assert run["open"] == 0 or run["status"] == "running"
        assert run["calls"] <= run["max_attempts"]
        if run["cancel_requested_at"] is not None:
            assert run["status"] != "queued"
        if run["attempts"] == 0 and run["status"] in TERMINAL:
            assert run["status"] == "canceled"


async def _race(rig: Rig, random: Random) -> None:
    """Let everything that can happen to three runs happen to them at once."""
    ids = [await rig.queued(on_unknown_outcome=random.choice(("retry", "fail"))) for _ in range(3)]
    held = [await rig.session() for _ in range(2)]
    answers = await claiming.claim(rig.store, held[0], ids[: random.randint(1, 3)])
    runs = [run for run in answers.values() if isinstance(run, ClaimedRun)]

    async def finish(run: ClaimedRun) -> None:
        (number,) = await claiming.intend(rig.store, [intent(run)])
        if not isinstance(number, int):
            return
        last = random.choice(
            (
                outcome(run, attempt=number),
                failed(run, attempt=number),
                back(run, attempt=number, outcome="unknown", billed="unknown"),
                back(run, attempt=number, outcome="not_sent", billed="no", uncounted=1),
            )
        )
        await rig.settle(*random.sample([last, back(run, claim_no=9)], 2))

    async def die() -> None:
        await rig.run(LEASE_IS_OVER, id=held[0])
        await sessions.mark_dead(rig.store, lease_s=0)
        await sessions.reap(rig.store, poison_deaths=3)

    async def claim() -> None:
        for run in (await claiming.claim(rig.store, held[1], ids)).values():
            if isinstance(run, ClaimedRun):
                await finish(run)

    events = [
        *(finish(run) for run in runs),
        *(_cancel(rig, run_id) for run_id in random.choices(ids, k=2)),
        *(die() for _ in range(random.randint(0, 1))),
        claim(),
    ]
    random.shuffle(events)
    await asyncio.gather(*events)


async def test_batches_over_the_same_runs_in_any_order_do_not_deadlock(rig: Rig) -> None:
    ids = [await rig.queued() for _ in range(30)]
    session = await rig.session()
    answers = await claiming.claim(rig.store, session, ids[:20])
    runs = [run for run in answers.values() if isinstance(run, ClaimedRun)]
    random = Random(3)

    for _ in range(10):
        batches = [random.sample(runs, len(runs)) for _ in range(2)]
        await asyncio.gather(
            claiming.intend(rig.store, [intent(run) for run in batches[0]]),
            rig.settle(*(back(run, claim_no=run.claim_no + 1) for run in batches[1])),
            claiming.claim(rig.store, session, random.sample(ids, len(ids))),
            *(_cancel(rig, run_id) for run_id in random.sample(ids[20:], 3)),
        )

    (found,) = await rig.rows(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert 0 == found["deadlocks"]


# Turns


@pytest.mark.parametrize("way", ["succeeded", "failed", "canceled", "queued"])
async def test_every_end_names_the_next_turn_and_a_way_back_does_not(rig: Rig, way: str) -> None:
    thread = str(new_id())
    session = await rig.session()
    first = await rig.queued(thread_id=thread, turns=True)
    second = await rig.queued(thread_id=thread, turns=True, priority="low")
    await rig.queued(thread_id=thread, turns=True)
    run = await rig.claim(session, first)
    await rig.intend(run)
    ends = {
        "succeeded": outcome(run),
        "failed": failed(run),
        "canceled": back(run, status="canceled", attempt=1, outcome="canceled", billed="unknown"),
        "queued": back(run, attempt=1, outcome="unknown", billed="unknown"),
    }

    (moved,) = await rig.settle(ends[way])

    assert moved.next_turn == (None if way == "queued" else (second, Lane.LOW))


async def test_canceling_a_turn_names_the_one_behind_it(rig: Rig) -> None:
    thread = str(new_id())
    ids = [await rig.queued(thread_id=thread, turns=True) for _ in range(3)]

    assert ("canceled", (ids[2], Lane.NORMAL)) == await _cancel(rig, ids[1])
    assert ("canceled", (ids[2], Lane.NORMAL)) == await _cancel(rig, ids[0])
    assert ("canceled", None) == await _cancel(rig, ids[2])


async def test_stateless_runs_of_a_thread_name_no_turn(rig: Rig) -> None:
    thread = str(new_id())
    await rig.queued(thread_id=thread, turns=True)
    stateless = await rig.queued(thread_id=thread)

    assert ("canceled", None) == await _cancel(rig, stateless)


async def test_a_turn_is_remembered_by_answers_only(rig: Rig) -> None:
    thread = str(new_id())
    turn = Raw(b'[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]')
    ends: tuple[tuple[str, dict[str, str]], ...] = (
        ("failed", {}),
        ("incomplete", {"incomplete_reason": "max_tokens"}),
        ("succeeded", {}),
    )
    for number, (status, more) in enumerate(ends, start=1):
        run = await rig.called(thread_id=thread, turns=True)
        assert number == run.turn
        error = {"error_code": "x"} if status == "failed" else {}
        await rig.settle(
            outcome(run, status=status, outcome="succeeded", turn=turn, **more, **error)
        )

    messages = await rig.rows("SELECT turn, position, role, content FROM messages ORDER BY 1, 2")
    assert [
        {"turn": turn_no, "position": position, "role": role, "content": content}
        for turn_no in (2, 3)
        for position, role, content in ((1, "user", "Hi"), (2, "assistant", "Hello"))
    ] == messages


# Events


async def _event_of(rig: Rig, run: ClaimedRun, **changes: Any) -> tuple[dict[str, Any], int]:
    await rig.settle(outcome(run, **changes))
    (row,) = await rig.rows("SELECT body FROM events WHERE run_id = %(id)s", id=run.id)
    return msgspec.json.decode(row["body"])["data"]["run"], len(row["body"].encode())


@pytest.mark.parametrize(
    ("output", "truncated"),
    [
        ("x" * OUTPUT_INLINE_BYTES, False),
        ("x" * (OUTPUT_INLINE_BYTES + 1), True),
        ("é" * (OUTPUT_INLINE_BYTES // 2), False),
        ("é" * (OUTPUT_INLINE_BYTES // 2 + 1), True),
        ("", False),
    ],
)
async def test_an_event_holds_short_outputs_only(rig: Rig, output: str, *, truncated: bool) -> None:
    run, size = await _event_of(rig, await rig.called(), output=output)

    assert (None if truncated else output, truncated) == (run["output"], run["outputTruncated"])
    assert EVENT_BYTES >= size


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": msgspec.json.encode({f"k{n:02}": "v" * 512 for n in range(50)}).decode()},
        {
            "metadata": msgspec.json.encode(
                {f"k{n:02}": ["é" * 512] * 20 for n in range(50)}
            ).decode(),
            "tags": ["t" * 128] * 10,
        },
    ],
)
async def test_an_event_with_giant_metadata_leaves_it_out(
    rig: Rig, changes: dict[str, Any]
) -> None:
    run, size = await _event_of(rig, await rig.called(**changes))

    assert EVENT_BYTES >= size
    assert run["metadataTruncated"]
    assert run["outputTruncated"]
    assert "metadata" not in run


async def test_an_output_that_grows_by_escaping_still_fits(rig: Rig) -> None:
    run, size = await _event_of(rig, await rig.called(), output="\x01" * OUTPUT_INLINE_BYTES)

    assert EVENT_BYTES >= size
    assert (None, True) == (run["output"], run["outputTruncated"])


async def test_an_event_shows_the_run_without_inputs_messages_and_attempts(rig: Rig) -> None:
    run, _ = await _event_of(rig, await rig.called())

    assert not {"inputs", "messages", "attempts"} & run.keys()
    assert {"id", "status", "prompt", "environment", "tokenUsage", "cost", "links"} <= run.keys()


# Deliveries


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({}, True),
        ({"events": ["run.succeeded"]}, True),
        ({"events": ["run.failed", "run.canceled"]}, False),
        ({"environment_ids": [new_id()]}, False),
        ({"disabled_at": "2026-01-01T00:00:00Z"}, False),
        ({"deleted_at": "2026-01-01T00:00:00Z"}, False),
    ],
)
async def test_only_endpoints_that_want_an_event_get_it(
    rig: Rig, columns: dict[str, Any], *, wanted: bool
) -> None:
    endpoint = await rig.endpoint(**columns)
    run = await rig.called()

    (moved,) = await rig.settle(outcome(run))

    assert [endpoint] * wanted == [delivery.endpoint_id for delivery in moved.deliveries]
    assert wanted == len(await rig.deliveries())


async def test_an_endpoint_of_the_runs_environment_gets_its_event(rig: Rig) -> None:
    endpoint = await rig.endpoint(environment_ids=[new_id(), rig.target.environment_id])
    run = await rig.called()

    (moved,) = await rig.settle(outcome(run))

    assert [endpoint] == [delivery.endpoint_id for delivery in moved.deliveries]


async def test_a_finish_leases_the_deliveries_to_its_worker_with_all_it_takes(rig: Rig) -> None:
    endpoint = await rig.endpoint("https://example.com/a", format="promptjuggler")
    text = await rig.secret(endpoint)
    run = await rig.called()

    (moved,) = await rig.settle(outcome(run))

    (due,) = moved.deliveries
    (row,) = await rig.rows(
        "SELECT *, extract(epoch FROM next_try_at - now())::float8 AS wait FROM deliveries"
    )
    assert (1, 0, "run.succeeded", run.id, "https://example.com/a", "promptjuggler", True) == (
        due.lease_no,
        due.tries,
        due.event_type,
        due.run_id,
        due.url,
        due.format,
        due.include_output,
    )
    assert [str(due.id), str(due.event_id), 1, "pending"] == [
        row["id"],
        row["event_id"],
        row["lease_no"],
        row["status"],
    ]
    assert 40 < row["wait"] <= 45
    opened = [
        rig.deps.vault.open(b64decode(sealed), "webhook_secrets", secret_id, due.workspace_id)
        for secret_id, sealed in due.secrets
    ]
    assert text.encode() == opened[0]
    assert 2 == len(opened)


async def test_another_workspaces_endpoint_hears_nothing(rig: Rig, other: Rig) -> None:
    await other.endpoint()
    run = await rig.called()

    (moved,) = await rig.settle(outcome(run))

    assert () == moved.deliveries
    assert [] == await rig.deliveries()


async def test_an_expired_secret_does_not_sign(rig: Rig) -> None:
    endpoint = await rig.endpoint()
    await rig.secret(endpoint, expires="now() - interval '1 s'")
    await rig.secret(endpoint, expires="now() + interval '1 hour'")
    run = await rig.called()

    (moved,) = await rig.settle(outcome(run))

    assert 2 == len(moved.deliveries[0].secrets)


async def test_a_canceled_run_leaves_its_deliveries_for_anyone(rig: Rig) -> None:
    await rig.endpoint()
    run_id = await rig.queued()

    await _cancel(rig, run_id)

    (row,) = await rig.rows("SELECT next_try_at <= now() AS due, lease_no FROM deliveries")
    assert {"due": True, "lease_no": 1} == row


async def test_ids_made_by_the_database_are_of_version_7_and_of_now(rig: Rig) -> None:
    await rig.endpoint()
    run = await rig.called()

    (moved,) = await rig.settle(outcome(run))

    (due,) = moved.deliveries
    for made in (due.id, due.event_id):
        assert (7, "specified in RFC 4122") == (made.version, made.variant)
        assert abs((made.int >> 80) - (new_id().int >> 80)) < 60_000
