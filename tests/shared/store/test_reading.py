"""Runs as the outside reads them: every field of the contract, in order, and nothing else."""

import re
from typing import Any

import msgspec
from msgspec import Raw

from shared.domain import money
from shared.domain.pricing import Cost
from shared.ids import RunId, WorkspaceId, new_id
from shared.store import claiming, ending, history, reading, sessions
from tests.shared.store.rig import Rig, back, failed, intent, outcome

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
RUN_KEYS = [
    "id",
    "status",
    "done",
    "statusReason",
    "nextAttemptAt",
    "prompt",
    "environment",
    "priority",
    "thread",
    "channel",
    "inputs",
    "metadata",
    "tags",
    "model",
    "output",
    "emitted",
    "incompleteReason",
    "error",
    "attempts",
    "messages",
    "tokenUsage",
    "cost",
    "createdAt",
    "startedAt",
    "finishedAt",
    "cancelRequestedAt",
    "contentsErasedAt",
    "replayedFrom",
    "links",
]
ATTEMPT_KEYS = [
    "number",
    "startedAt",
    "finishedAt",
    "outcome",
    "model",
    "providerRequestId",
    "usage",
    "cost",
    "billed",
    "late",
    "error",
]
PROMPT_RUN_KEYS = [
    "id",
    "status",
    "createdAt",
    "finishedAt",
    "output",
    "emitted",
    "transcript",
    "error",
    "tokenUsage",
    "cost",
]
NOTHING = {
    "input": 0,
    "cachedInput": 0,
    "cacheWrite": 0,
    "output": 0,
    "webSearch": 0,
    "total": 0,
}


async def _run(rig: Rig, run_id: RunId) -> dict[str, Any]:
    shown = await reading.run(rig.store, rig.tenant.workspace_id, run_id)
    assert shown is not None
    run: dict[str, Any] = msgspec.json.decode(shown)
    return run


async def _prompt_run(rig: Rig, run_id: RunId) -> dict[str, Any]:
    shown = await reading.prompt_run(rig.store, rig.tenant.workspace_id, run_id)
    assert shown is not None
    run: dict[str, Any] = msgspec.json.decode(shown)
    return run


async def test_a_waiting_run_shows_all_of_its_keys_and_empty_ends(rig: Rig) -> None:
    new = rig.new()
    run_id = await rig.queued(
        id=new.id, thread_id=new.thread_id, metadata='{"a":["b"]}', tags=("x",), tag="live"
    )

    run = await _run(rig, run_id)

    assert RUN_KEYS == list(run)
    assert MOMENT.fullmatch(run.pop("createdAt"))
    assert {
        "id": new.id,
        "status": "queued",
        "done": False,
        "statusReason": None,
        "nextAttemptAt": None,
        "prompt": {
            "slug": "greeting",
            "version": 1,
            "versionId": str(rig.target.version_id),
            "tag": "live",
        },
        "environment": "production",
        "priority": "normal",
        "thread": new.thread_id,
        "channel": "default",
        "inputs": {"name": "Ada"},
        "metadata": {"a": ["b"]},
        "tags": ["x"],
        "model": "sim/echo",
        "output": None,
        "incompleteReason": None,
        "error": None,
        "attempts": [],
        "messages": None,
        "tokenUsage": None,
        "cost": None,
        "startedAt": None,
        "finishedAt": None,
        "cancelRequestedAt": None,
        "contentsErasedAt": None,
        "emitted": [],
        "replayedFrom": None,
        "links": {
            "self": f"/api/v1/runs/{new.id}",
            "cancel": f"/api/v1/runs/{new.id}/cancel",
            "replay": f"/api/v1/runs/{new.id}/replay",
            "deliveries": f"/api/v1/runs/{new.id}/deliveries",
        },
    } == run


async def test_a_finished_run_shows_its_answer_attempts_tokens_and_exact_cost(rig: Rig) -> None:
    run = await rig.claimed()
    await claiming.intend(
        rig.store, [intent(run, messages=Raw(b'[{"role":"user","content":"Hello Ada"}]'))]
    )
    cost = Cost(input=1, total=1)
    await rig.settle(
        outcome(
            run,
            token_usage=Raw(b'{"input":1,"total":3}'),
            cost=money.run_cost_json(cost, Cost()),
            usage=Raw(b'{"input":1}'),
            attempt_cost=money.cost_json(cost),
            provider_request_id="req_1",
        )
    )

    shown = await _run(rig, run.id)

    (attempt,) = shown["attempts"]
    assert ATTEMPT_KEYS == list(attempt)
    for moment in (
        shown["startedAt"],
        shown["finishedAt"],
        attempt["startedAt"],
        attempt["finishedAt"],
    ):
        assert MOMENT.fullmatch(moment)
    assert ("succeeded", True, "Hello", {"input": 1, "total": 3}) == (
        shown["status"],
        shown["done"],
        shown["output"],
        shown["tokenUsage"],
    )
    assert {
        "success": NOTHING | {"input": 1e-9, "total": 1e-9},
        "retries": NOTHING,
        "total": 1e-9,
    } == shown["cost"]
    assert [{"role": "user", "content": "Hello Ada"}] == shown["messages"]
    assert (1, "succeeded", "sim/echo", "req_1", "yes", False, None) == (
        attempt["number"],
        attempt["outcome"],
        attempt["model"],
        attempt["providerRequestId"],
        attempt["billed"],
        attempt["late"],
        attempt["error"],
    )


async def test_a_failed_run_says_what_why_and_whose_turn_it_is(rig: Rig) -> None:
    run = await rig.called()
    await rig.settle(
        failed(run, attempt_error_code="provider_refused", attempt_error="No.", last_error="No.")
    )

    shown = await _run(rig, run.id)

    assert {"code": "provider_refused", "message": "No.", "origin": "provider"} == shown["error"]
    assert {"code": "provider_refused", "message": "No."} == shown["attempts"][0]["error"]


async def test_a_run_that_waits_for_a_retry_says_when_and_why(rig: Rig) -> None:
    run = await rig.called()
    await rig.settle(
        back(
            run,
            attempt=1,
            outcome="not_started",
            billed="no",
            delay_ms=60_000,
            status_reason="provider_rate_limit",
        )
    )

    shown = await _run(rig, run.id)

    assert "provider_rate_limit" == shown["statusReason"]
    assert MOMENT.fullmatch(shown["nextAttemptAt"])
    assert MOMENT.fullmatch(shown["startedAt"])


async def test_a_run_that_is_stopping_says_since_when(rig: Rig) -> None:
    run = await rig.called()
    await ending.cancel(rig.store, rig.tenant.workspace_id, run.id)

    shown = await _run(rig, run.id)

    assert ("running", False) == (shown["status"], shown["done"])
    assert MOMENT.fullmatch(shown["cancelRequestedAt"])


async def test_a_late_result_shows_on_its_attempt_without_the_answer(rig: Rig) -> None:
    late = await rig.called()
    await rig.die(late.session_id)
    await sessions.reap(rig.store, poison_deaths=3)
    await rig.settle(outcome(late, output="Late"))

    shown = await _run(rig, late.id)

    assert (None, True, "succeeded") == (
        shown["output"],
        shown["attempts"][0]["late"],
        shown["attempts"][0]["outcome"],
    )


async def test_numbers_and_texts_of_inputs_come_back_as_they_were_given(rig: Rig) -> None:
    text = '{"b":"1e400","a":"\\u0001é😀","a":"twice"}'
    run_id = await rig.queued(inputs=text)

    shown = await reading.run(rig.store, rig.tenant.workspace_id, run_id)

    assert shown is not None
    assert text in shown.replace('" : ', '":').replace(", ", ",")


async def test_other_workspaces_and_unknown_ids_read_nothing(rig: Rig, other: Rig) -> None:
    run_id = await rig.queued()

    for workspace, wanted in (
        (other.tenant.workspace_id, run_id),
        (WorkspaceId(new_id()), run_id),
        (rig.tenant.workspace_id, RunId(new_id())),
    ):
        assert await reading.run(rig.store, workspace, wanted) is None
        assert await reading.prompt_run(rig.store, workspace, wanted) is None


# The prompts door


async def test_a_prompt_run_has_exactly_its_keys_in_every_state(rig: Rig) -> None:
    waiting, running = await rig.queued(), (await rig.called()).id
    done, refused = await rig.finished(), await rig.called()
    await rig.settle(failed(refused, last_error="No."))
    canceled = await rig.queued()
    await ending.cancel(rig.store, rig.tenant.workspace_id, canceled)

    shown = [
        await _prompt_run(rig, run_id) for run_id in (waiting, running, done, refused.id, canceled)
    ]

    assert [PROMPT_RUN_KEYS] * 5 == [list(run) for run in shown]
    assert ["pending", "pending", "completed", "failed", "failed"] == [
        run["status"] for run in shown
    ]
    assert [None, None, "Hello", None, None] == [run["output"] for run in shown]
    assert [None, None, None, "No.", None] == [run["error"] for run in shown]
    assert [[], [], [{"type": "text", "content": "Hello", "citations": []}], [], []] == [
        run["transcript"] for run in shown
    ]
    assert [[]] * 5 == [run["emitted"] for run in shown]
    assert [False, False, True, True, True] == [
        run["finishedAt"] is not None and bool(MOMENT.fullmatch(run["finishedAt"])) for run in shown
    ]


async def test_an_error_that_was_overcome_stays_visible(rig: Rig) -> None:
    run = await rig.called()
    await rig.settle(
        back(run, attempt=1, outcome="server_error", billed="no", last_error="Overloaded.")
    )
    again = await rig.claim(await rig.session(), run.id)
    await rig.intend(again)
    await rig.settle(outcome(again, attempt=2))

    shown = await _prompt_run(rig, run.id)

    assert ("completed", "Overloaded.") == (shown["status"], shown["error"])


async def test_what_never_started_cost_nothing_and_what_has_no_price_is_null(rig: Rig) -> None:
    canceled = await rig.queued()
    await ending.cancel(rig.store, rig.tenant.workspace_id, canceled)
    unpriced = await rig.finished()

    costs = [(await _prompt_run(rig, run_id))["cost"] for run_id in (canceled, unpriced)]

    assert [{"success": NOTHING, "retries": NOTHING, "total": 0}, None] == costs


# Threads


async def test_history_is_what_came_before_in_the_same_channel(rig: Rig) -> None:
    thread = str(new_id())
    for number, channel in enumerate(("a", "b", "a")):
        run = await rig.called(thread_id=thread, turns=True, channel=channel)
        await rig.settle(outcome(run, turn=Raw(b'[{"role":"user","content":"%d"}]' % number)))
    last = await rig.queued(thread_id=thread, turns=True, channel="a")

    first, said = await history.before(rig.store, last)

    assert 1 == first
    assert [{"role": "user", "content": "0"}, {"role": "user", "content": "2"}] == (
        msgspec.json.decode(said)
    )


async def test_a_first_turn_has_no_history(rig: Rig) -> None:
    run_id = await rig.queued(turns=True)

    assert (1, "[]") == await history.before(rig.store, run_id)


async def test_a_run_in_a_paused_lane_says_so_and_others_do_not(rig: Rig) -> None:
    low = await rig.queued(priority="low")
    normal = await rig.queued(priority="normal")
    await rig.store.execute("INSERT INTO lane_pauses (lane) VALUES ('low')", {})

    paused = [(await _run(rig, run_id))["statusReason"] for run_id in (low, normal)]
    await rig.store.execute("DELETE FROM lane_pauses", {})

    assert ["lane_paused", None] == paused
    assert (await _run(rig, low))["statusReason"] is None
