"""Carrying runs: what is called, what is written, and what a failure on the way may not do."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec
import pytest
from pydantic import SecretStr

from shared.deps import Deps
from shared.domain.completions import FailureClass, ProviderError, Usage
from shared.domain.states import Billed, IncompleteReason
from shared.ids import RunId, new_id
from shared.queue.lanes import Lanes
from shared.services import runs
from shared.settings import Settings
from shared.store import ending, reading
from tests.shared.store.rig import Rig, Row, a_rig, base64
from tests.worker.execute_rig import (
    CLAIM,
    INTENT,
    SETTLE,
    CutStore,
    Hands,
    ScriptedProvider,
    completion,
    hands,
    store_that_can_be_cut,  # noqa: F401 (a fixture)
)
from tests.worker.lane_rig import until
from worker.handler import NotNowError
from worker.session import Session


@pytest.fixture(name="settings")
def settings_with_short_waits(settings: Settings) -> Settings:
    return settings.model_copy(update={"lease_s": 0.2, "renew_s": 60.0, "self_fence_s": 60.0})


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


def _failure(kind: FailureClass, **changes: Any) -> ProviderError:
    fields = {"code": "provider_x", "message": "It said no."}
    return ProviderError(kind, **(fields | changes))


async def _due_now(rig: Rig, run_id: RunId) -> None:
    await rig.change(run_id, "available_at = now()")


async def _attempt(rig: Rig, run_id: RunId) -> Row:
    return (await rig.attempts(run_id))[-1]


# The plain way


async def test_a_run_is_rendered_called_and_settled(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await rig.endpoint()
    run_id = await rig.queued(traceparent="00-ab", params='{"temperature":0.5}')

    await worker.carry(run_id)

    (request,) = provider.requests
    row, attempt = await rig.row(run_id), await _attempt(rig, run_id)
    assert (str(run_id), 1, "echo", "00-ab", 0.5) == (
        request.run_id,
        request.attempt,
        request.model,
        request.traceparent,
        request.params.temperature,
    )
    assert [("user", "Hello Ada")] == [(m.role, m.content) for m in request.messages]
    assert ("succeeded", "Hello", "sim/echo", [{"role": "user", "content": "Hello Ada"}]) == (
        row["status"],
        row["output"],
        row["model"],
        row["messages"],
    )
    assert (3, 2, 5) == tuple(row["token_usage"][name] for name in ("input", "output", "total"))
    assert row["cost_nanousd"] == attempt["cost_nanousd"] > 0
    assert ("succeeded", "yes", "sim") == (
        attempt["outcome"],
        attempt["billed"],
        attempt["price_version"],
    )
    assert [run_id] == [delivery.run_id for delivery in worker.delivered]


async def test_no_call_is_made_before_its_attempt_is_committed(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    provider.gate = asyncio.Event()
    run_id = await rig.queued()
    task = await worker.start(run_id)
    await provider.called.wait()

    attempt, row = await _attempt(rig, run_id), await rig.row(run_id)

    assert (None, "running", 1) == (attempt["outcome"], row["status"], row["calls"])
    provider.gate.set()
    await task


async def test_an_answer_that_was_cut_short_is_incomplete(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    provider.script = [completion("Hel", incomplete=IncompleteReason.MAX_TOKENS)]
    run_id = await rig.queued()

    await worker.carry(run_id)

    row = await rig.row(run_id)
    assert ("incomplete", "max_tokens", "Hel", "incomplete") == (
        row["status"],
        row["incomplete_reason"],
        row["output"],
        (await _attempt(rig, run_id))["outcome"],
    )


async def test_ids_that_are_not_to_be_had_are_not_taken_and_early_ones_rung_again(
    rig: Rig, worker: Hands, lanes: Lanes
) -> None:
    early, taken = await rig.queued(), await rig.queued()
    await rig.change(early, "available_at = now() + interval '1 hour'")
    done = await rig.finished()

    found = await worker.executor.take([early, taken, done, RunId(new_id())])

    (due,) = await rig.rows(
        "SELECT ceil(extract(epoch FROM available_at) * 1000)::bigint AS ms FROM runs"
        " WHERE id = %(id)s",
        id=early,
    )
    assert {taken} == {run_id for run_id, claimed in found.items() if claimed is not None}
    assert due["ms"] == await lanes.zscore("rl:normal", str(early))


# Failures of the provider


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (_failure(FailureClass.SERVER_ERROR), (1, "retry_backoff")),
        (_failure(FailureClass.UNKNOWN, billed=Billed.UNKNOWN), (1, "retry_backoff")),
        (_failure(FailureClass.NOT_SENT), (0, "retry_backoff")),
        (_failure(FailureClass.NOT_STARTED, retry_after_s=60.0), (0, "provider_rate_limit")),
    ],
)
async def test_a_failed_call_goes_back_and_is_tried_again(
    rig: Rig,
    worker: Hands,
    provider: ScriptedProvider,
    lanes: Lanes,
    error: ProviderError,
    left: tuple[int, str],
) -> None:
    provider.script = [error]
    run_id = await rig.queued()
    await worker.carry(run_id)
    row, attempt = await rig.row(run_id), await _attempt(rig, run_id)
    rung_ms = await lanes.zscore("rl:normal", str(run_id))
    (due,) = await rig.rows(
        "SELECT ceil(extract(epoch FROM available_at) * 1000)::bigint AS ms,"
        " extract(epoch FROM available_at - now())::float8 AS wait FROM runs"
    )
    await _due_now(rig, run_id)

    await worker.carry(run_id)

    calls, reason = left
    assert ("queued", reason, calls, "It said no.") == (
        row["status"],
        row["status_reason"],
        row["calls"],
        row["last_error"],
    )
    assert (error.kind.value, error.billed.value, "It said no.") == (
        attempt["outcome"],
        attempt["billed"],
        attempt["error_message"],
    )
    assert due["ms"] == rung_ms
    assert (55 < due["wait"] <= 60) == (error.retry_after_s is not None)
    final = await rig.row(run_id)
    assert ("succeeded", 2, calls + 1) == (final["status"], final["attempts"], final["calls"])
    assert "It said no." == final["last_error"]


@pytest.mark.parametrize(
    ("error", "changes", "end"),
    [
        (_failure(FailureClass.REFUSED), {}, ("provider_x", 1)),
        (_failure(FailureClass.SERVER_ERROR), {"max_attempts": 2}, ("provider_x", 2)),
        (_failure(FailureClass.UNKNOWN), {"max_attempts": 2}, ("provider_x", 2)),
        (_failure(FailureClass.UNKNOWN), {"on_unknown_outcome": "fail"}, ("outcome_unknown", 1)),
    ],
)
async def test_a_run_is_given_up_where_another_call_is_not_allowed(
    rig: Rig,
    worker: Hands,
    provider: ScriptedProvider,
    error: ProviderError,
    changes: dict[str, Any],
    end: tuple[str, int],
) -> None:
    provider.script = [error] * 5
    run_id = await rig.queued(**changes)

    while await rig.status(run_id) == "queued":
        await _due_now(rig, run_id)
        await worker.carry(run_id)

    row = await rig.row(run_id)
    code, calls = end
    assert ("failed", code, "It said no.", "provider", None) == (
        row["status"],
        row["error_code"],
        row["error_message"],
        row["error_origin"],
        row["output"],
    )
    assert calls == len(provider.requests) == row["calls"]
    assert ["run.failed"] == [event["type"] for event in await rig.events(run_id)]


async def test_calls_that_never_started_do_not_use_up_a_run(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    provider.script = [_failure(FailureClass.NOT_SENT)] * 4
    run_id = await rig.queued(max_attempts=1)

    for _ in range(4):
        await worker.carry(run_id)
        await _due_now(rig, run_id)
    await worker.carry(run_id)

    row = await rig.row(run_id)
    assert ("succeeded", 1, 5) == (row["status"], row["calls"], row["attempts"])


async def test_what_failed_calls_cost_is_part_of_the_runs_cost(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    paid = Usage(input=1000, output=10)
    provider.script = [
        _failure(FailureClass.UNKNOWN, usage=paid, billed=Billed.YES),
        _failure(FailureClass.SERVER_ERROR),
        completion(),
    ]
    run_id = await rig.queued()

    for _ in range(3):
        await _due_now(rig, run_id)
        await worker.carry(run_id)

    row, attempts = await rig.row(run_id), await rig.attempts(run_id)
    costs = [attempt["cost_nanousd"] for attempt in attempts]
    assert costs[0] > 0
    assert costs[1] is None
    assert row["cost_nanousd"] == costs[0] + costs[2]
    assert row["cost"]["retries"]["total"] == costs[0] / 1e9
    assert row["cost"]["success"]["total"] == costs[2] / 1e9


# Before a call


async def test_a_run_past_its_deadline_is_not_called(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    run_id = await rig.queued()
    await rig.change(run_id, "deadline = now() - interval '1 s'")

    await worker.carry(run_id)

    row = await rig.row(run_id)
    assert ("failed", "deadline_exceeded", "policy") == (
        row["status"],
        row["error_code"],
        row["error_origin"],
    )
    assert [] == provider.requests


async def test_a_call_may_take_no_longer_than_the_run_has_left(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await worker.carry(await rig.queued(max_duration_s=50))
    await worker.carry(await rig.queued(max_duration_s=5000))

    assert 45 < provider.requests[0].timeout_s <= 50
    assert 600 == provider.requests[1].timeout_s


async def test_an_unknown_provider_ends_the_run_without_a_call(rig: Rig, worker: Hands) -> None:
    run_id = await rig.queued(model="nobody/x")

    await worker.carry(run_id)

    row = await rig.row(run_id)
    assert ("failed", "unknown_provider", 0) == (row["status"], row["error_code"], row["calls"])


async def test_a_worker_that_may_not_start_sends_nothing(
    rig: Rig, deps: Deps, provider: ScriptedProvider
) -> None:
    class Fenced(Session):
        def may_start(self) -> bool:
            return False

    run_id = await rig.queued()
    async with hands(deps, provider, session=Fenced(deps, print)) as fenced:
        assert not fenced.executor.may_start()
        await fenced.carry(run_id)

    row, attempt = await rig.row(run_id), await _attempt(rig, run_id)
    assert [] == provider.requests
    assert ("queued", 0, "not_sent", "no") == (
        row["status"],
        row["calls"],
        attempt["outcome"],
        attempt["billed"],
    )


# Breakers


@pytest.fixture
def vendor() -> ScriptedProvider:
    return ScriptedProvider("openai")


@pytest.fixture
def paying(deps: Deps) -> Deps:
    """A server with a key of its own, and quick breakers."""
    return _with(deps, openai_api_key=SecretStr("sk-of-the-server"), breaker_open_s=0.3)


def _with(deps: Deps, **settings: Any) -> Deps:
    return replace(deps, settings=deps.settings.model_copy(update=settings))


async def test_failures_open_the_circuit_and_runs_wait_without_a_call(
    paying: Deps, vendor: ScriptedProvider, provider: ScriptedProvider
) -> None:
    rig = await a_rig(paying, server_credentials=True)
    vendor.script = [_failure(FailureClass.SERVER_ERROR)] * 5
    async with hands(paying, vendor, provider) as worker:
        for _ in range(5):
            await worker.carry(await rig.queued(model="openai/x"))
        parked = await rig.queued(model="openai/x")
        elsewhere = [await rig.queued(model="openai/y"), await rig.queued()]

        for run_id in (parked, *elsewhere):
            await worker.carry(run_id)

    row = await rig.row(parked)
    assert ("queued", "circuit_open", 0, 0) == (
        row["status"],
        row["status_reason"],
        row["calls"],
        row["attempts"],
    )
    assert ["succeeded"] * 2 == [await rig.status(run_id) for run_id in elsewhere]
    assert 6 == len(vendor.requests)


async def test_want_of_memory_follows_the_run_s_policy_and_is_not_the_vendor_s_fault(
    paying: Deps, vendor: ScriptedProvider
) -> None:
    rig = await a_rig(paying, server_credentials=True)
    vendor.script = [MemoryError()] * 6
    again = [await rig.queued(model="openai/x") for _ in range(5)]
    once = await rig.queued(model="openai/x", on_unknown_outcome="fail")
    last = await rig.queued(model="openai/x")

    async with hands(paying, vendor) as worker:
        for run_id in (*again, once, last):
            await worker.carry(run_id)

    rows = [await rig.row(run_id) for run_id in again]
    given_up = await rig.row(once)
    assert {("queued", "retry_backoff", 1)} == {
        (row["status"], row["status_reason"], row["calls"]) for row in rows
    }
    assert ("failed", "outcome_unknown", "platform") == (
        given_up["status"],
        given_up["error_code"],
        given_up["error_origin"],
    )
    assert "succeeded" == await rig.status(last)


async def test_a_bad_credential_opens_the_circuit_at_once(
    paying: Deps, vendor: ScriptedProvider
) -> None:
    rig = await a_rig(paying, server_credentials=True)
    vendor.script = [_failure(FailureClass.REFUSED, credential_bad=True)]
    first, second = [await rig.queued(model="openai/x") for _ in range(2)]

    async with hands(paying, vendor) as worker:
        await worker.carry(first)
        await worker.carry(second)

    assert ["failed", "queued"] == [await rig.status(first), await rig.status(second)]
    assert 1 == len(vendor.requests)


async def test_a_probe_that_is_stopped_leaves_the_probing_to_the_next(
    deps: Deps, vendor: ScriptedProvider
) -> None:
    quick = _with(deps, openai_api_key=SecretStr("sk-x"), breaker_open_s=0.001, breaker_failures=1)
    rig = await a_rig(quick, server_credentials=True)
    vendor.script = [_failure(FailureClass.SERVER_ERROR)]
    async with hands(quick, vendor) as worker:
        await worker.carry(await rig.queued(model="openai/x"))
        vendor.gate, probe = asyncio.Event(), await rig.queued(model="openai/x")
        vendor.called.clear()
        task = await worker.start(probe)
        await vendor.called.wait()
        worker.running.cancel(probe)
        await task
        vendor.gate = None

        run_id = await rig.queued(model="openai/x")
        await worker.carry(run_id)

    assert ["canceled", "succeeded"] == [await rig.status(probe), await rig.status(run_id)]


# Stops


async def test_a_user_stops_a_call_under_way(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    provider.gate = asyncio.Event()
    run_id = await rig.queued()
    task = await worker.start(run_id)
    await provider.called.wait()

    _, stopping = await runs.cancel(rig.deps, rig.tenant.principal, run_id)
    worker.running.cancel(run_id)

    await task
    row, attempt = await rig.row(run_id), await _attempt(rig, run_id)
    assert stopping
    assert ("canceled", "canceled", "unknown", 1) == (
        row["status"],
        attempt["outcome"],
        attempt["billed"],
        row["calls"],
    )
    assert ["run.canceled"] == [event["type"] for event in await rig.events(run_id)]


async def test_a_run_canceled_before_its_intent_is_never_called(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    run_id = await rig.queued()
    claimed = (await worker.executor.take([run_id]))[run_id]
    await ending.cancel(rig.store, rig.tenant.workspace_id, run_id)

    assert claimed is not None
    await worker.executor.run(claimed)

    row = await rig.row(run_id)
    assert ("canceled", 0, []) == (row["status"], row["calls"], provider.requests)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({}, "queued", None),
        ({"on_unknown_outcome": "fail"}, "failed", "outcome_unknown"),
        ({"max_attempts": 1}, "failed", "outcome_unknown"),
    ],
)
async def test_a_leaving_worker_hands_its_calls_over_as_their_policy_says(
    rig: Rig,
    worker: Hands,
    provider: ScriptedProvider,
    changes: dict[str, Any],
    *,
    status: str,
    code: str | None,
) -> None:
    provider.gate = asyncio.Event()
    run_id = await rig.queued(**changes)
    task = await worker.start(run_id)
    await provider.called.wait()

    worker.running.stop_all()

    await task
    row, attempt = await rig.row(run_id), await _attempt(rig, run_id)
    assert (status, code, "unknown", "unknown") == (
        row["status"],
        row["error_code"],
        attempt["outcome"],
        attempt["billed"],
    )


async def test_a_leaving_worker_cancels_what_was_asked_to_stop(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    provider.gate = asyncio.Event()
    run_id = await rig.queued()
    task = await worker.start(run_id)
    await provider.called.wait()
    await ending.cancel(rig.store, rig.tenant.workspace_id, run_id)

    worker.running.stop_all()

    await task
    assert "canceled" == await rig.status(run_id)


# The database goes away


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("word", [INTENT, SETTLE])
async def test_a_connection_lost_on_the_way_changes_nothing_for_the_run(
    rig: Rig,
    worker: Hands,
    provider: ScriptedProvider,
    store: CutStore,
    word: str,
    *,
    carried_out: bool,
) -> None:
    store.cut_at(word, carried_out=carried_out, times=1)
    run_id = await rig.queued()

    await worker.carry(run_id)

    row, attempts = await rig.row(run_id), await rig.attempts(run_id)
    assert ("succeeded", 1, 1, 1) == (
        row["status"],
        row["calls"],
        len(attempts),
        len(provider.requests),
    )
    assert 1 == len(await rig.events(run_id))


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("early", [True, False])
async def test_a_cancel_during_an_outage_ends_the_run_when_it_is_over(
    rig: Rig,
    worker: Hands,
    provider: ScriptedProvider,
    store: CutStore,
    *,
    carried_out: bool,
    early: bool,
) -> None:
    """Early: while the statement hangs; late: while the lost one is repeated."""
    lost = asyncio.Event()
    store.cut_at(INTENT, carried_out=carried_out, until=lost)
    store.cut_at(INTENT, carried_out=False, times=2)
    run_id = await rig.queued()
    task = await worker.start(run_id)
    await store.cut.wait()
    await ending.cancel(rig.store, rig.tenant.workspace_id, run_id)
    if early:
        worker.running.cancel(run_id)
        lost.set()
    else:
        lost.set()
        await until(lambda: store.cuts[1].times < 2)
        worker.running.cancel(run_id)

    await task

    row, attempts = await rig.row(run_id), await rig.attempts(run_id)
    assert ("canceled", 0, []) == (row["status"], row["calls"], provider.requests)
    assert [("canceled", "no")] * carried_out == [
        (attempt["outcome"], attempt["billed"]) for attempt in attempts
    ]


async def test_a_leaving_worker_knows_the_attempt_whose_announcement_was_lost(
    rig: Rig, worker: Hands, provider: ScriptedProvider, store: CutStore
) -> None:
    store.cut_at(INTENT, carried_out=True)
    provider.gate = asyncio.Event()
    run_id = await rig.queued()
    task = await worker.start(run_id)
    await provider.called.wait()

    worker.running.stop_all()
    await task

    row, (attempt,) = await rig.row(run_id), await rig.attempts(run_id)
    assert ("queued", 1, "unknown") == (row["status"], row["calls"], attempt["outcome"])


async def test_a_claim_whose_answer_was_lost_is_given_back(
    rig: Rig, worker: Hands, store: CutStore, lanes: Lanes
) -> None:
    run_id = await rig.queued()
    store.cut_at(CLAIM, carried_out=True)
    with pytest.raises(NotNowError):
        await worker.executor.take([run_id])
    lost = await rig.status(run_id)

    giving_back = asyncio.create_task(worker.executor.give_back_forever())

    async def rung() -> bool:
        return await lanes.zscore("rl:normal", str(run_id)) is not None

    await until(rung)
    giving_back.cancel()
    assert ("running", "queued") == (lost, await rig.status(run_id))
    await worker.carry(run_id)
    assert "succeeded" == await rig.status(run_id)


async def test_a_run_in_hand_is_not_given_back(
    rig: Rig, worker: Hands, provider: ScriptedProvider, store: CutStore
) -> None:
    provider.gate = asyncio.Event()
    run_id = await rig.queued()
    task = await worker.start(run_id)
    await provider.called.wait()
    giving_back = asyncio.create_task(worker.executor.give_back_forever())
    await until(lambda: store.looked > 3)
    before = await rig.row(run_id)

    giving_back.cancel()
    provider.gate.set()

    await task
    assert ("running", 1) == (before["status"], before["claim_no"])
    assert "succeeded" == await rig.status(run_id)


# Faults of ours


async def test_a_fault_of_ours_fails_the_run_and_says_so(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    provider.script = [RuntimeError("a bug")]
    run_id = await rig.queued()

    await worker.carry(run_id)

    row, attempt = await rig.row(run_id), await _attempt(rig, run_id)
    assert ("failed", "internal_error", "platform", "unknown", "unknown") == (
        row["status"],
        row["error_code"],
        row["error_origin"],
        attempt["outcome"],
        attempt["billed"],
    )


@pytest.mark.parametrize("text", ["before\x00after", "\ud800"])
async def test_an_answer_that_cannot_be_stored_fails_the_run_and_no_other(
    rig: Rig, worker: Hands, provider: ScriptedProvider, text: str
) -> None:
    provider.gate = asyncio.Event()
    provider.script = [completion(text), completion("fine")]
    ids = [await rig.queued(), await rig.queued()]
    tasks = [await worker.start(run_id) for run_id in ids]

    provider.gate.set()
    await asyncio.gather(*tasks)

    rows = [await rig.row(run_id) for run_id in ids]
    assert ["failed", "succeeded"] == sorted(row["status"] for row in rows)
    (failed,) = (row for row in rows if row["status"] == "failed")
    attempt = await _attempt(rig, RunId(UUID(failed["id"])))
    assert ("internal_error", "unknown") == (failed["error_code"], attempt["billed"])


async def test_a_message_that_the_database_refuses_fails_the_run(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    run_id = await rig.queued(inputs='{"name":"A"}')
    await rig.run(
        "UPDATE runs SET inputs = %(inputs)s::json WHERE id = %(id)s",
        inputs='{"name":"A\\u0000"}',
        id=run_id,
    )

    await worker.carry(run_id)

    (row,) = await rig.rows("SELECT status, error_code FROM runs")
    assert {"status": "failed", "error_code": "internal_error"} == row
    assert [] == provider.requests


# Threads


def _chat(memory: str) -> dict[str, Any]:
    return {
        "model": "sim/echo",
        "memory": memory,
        "systemInstruction": "Be brief.",
        "messages": [{"role": "user", "content": "I say {{ name }}"}],
    }


async def _say(rig: Rig, name: str, thread: str, *, reads: bool = True) -> RunId:
    return await rig.queued(
        inputs=msgspec.json.encode({"name": name}).decode(),
        thread_id=thread,
        turns=True,
        history_read=reads,
    )


async def test_two_turns_of_a_thread_are_carried_in_order_with_its_history(
    deps: Deps, worker: Hands, provider: ScriptedProvider, lanes: Lanes
) -> None:
    rig, thread = await a_rig(deps, _chat("read_write")), str(new_id())
    provider.script = [completion("One."), completion("Two.")]
    first, second = await _say(rig, "a", thread), await _say(rig, "b", thread)

    too_early = await worker.executor.take([second])
    await worker.carry(first)
    rung = await lanes.zscore("rl:normal", str(second))
    await worker.carry(second)

    assert {} == too_early
    assert rung is not None
    assert [("system", "Be brief."), ("user", "I say a")] == [
        (m.role, m.content) for m in provider.requests[0].messages
    ]
    whole = [
        ("system", "Be brief."),
        ("user", "I say a"),
        ("assistant", "One."),
        ("user", "I say b"),
    ]
    assert whole == [(m.role, m.content) for m in provider.requests[1].messages]
    shown = await reading.run(rig.store, rig.tenant.workspace_id, second)
    assert shown is not None
    assert whole == [(m["role"], m["content"]) for m in msgspec.json.decode(shown)["messages"]]


@pytest.mark.parametrize(
    ("memory", "remembered"), [("read_write", 2), ("write_only", 2), ("read_only", 0)]
)
async def test_a_turn_is_remembered_where_the_template_writes(
    deps: Deps, worker: Hands, memory: str, *, remembered: int
) -> None:
    rig = await a_rig(deps, _chat(memory))

    await worker.carry(await _say(rig, "a", str(new_id()), reads=memory != "write_only"))

    assert remembered == len(await rig.rows("SELECT 1 FROM messages"))


@pytest.mark.parametrize(
    "end",
    [
        lambda provider: provider.script.append(_failure(FailureClass.REFUSED)),
        lambda provider: provider.script.append(RuntimeError("a bug")),
    ],
)
async def test_after_a_failed_turn_the_next_one_goes_on_without_it(
    deps: Deps,
    worker: Hands,
    provider: ScriptedProvider,
    lanes: Lanes,
    end: Callable[[ScriptedProvider], None],
) -> None:
    rig, thread = await a_rig(deps, _chat("read_write")), str(new_id())
    end(provider)
    first, second = await _say(rig, "a", thread), await _say(rig, "b", thread)

    await worker.carry(first)
    rung = await lanes.zscore("rl:normal", str(second))
    await worker.carry(second)

    assert rung is not None
    assert ["system", "user"] == [m.role for m in provider.requests[1].messages]


# Credentials


@pytest.mark.parametrize(
    ("envvars", "variable", "server", "used"),
    [
        (True, True, True, "sk-of-the-run"),
        (False, True, True, "sk-of-the-environment"),
        (False, False, True, "sk-of-the-server"),
        (False, False, False, None),
    ],
)
async def test_the_nearest_credential_pays(
    paying: Deps,
    vendor: ScriptedProvider,
    *,
    envvars: bool,
    variable: bool,
    server: bool,
    used: str | None,
) -> None:
    rig = await a_rig(paying, server_credentials=server)
    workspace, environment = rig.tenant.workspace_id, rig.tenant.environment_id
    run_id = new_id()
    sealed = paying.vault.seal(
        b'{"OPENAI_API_KEY":"sk-of-the-run"}', "runs", "env_vars", run_id, workspace
    )
    if variable:
        place = ("environment_variables", "OPENAI_API_KEY", environment, workspace)
        await rig.run(
            "INSERT INTO environment_variables (environment_id, key, workspace_id, sealed, last4)"
            " VALUES (%(environment)s, 'OPENAI_API_KEY', %(workspace)s, %(sealed)s, 'ment')",
            environment=environment,
            workspace=workspace,
            sealed=paying.vault.seal(b"sk-of-the-environment", *place),
        )
    await rig.queued(
        id=str(run_id), model="openai/gpt-x", env_vars=base64(sealed) if envvars else None
    )

    async with hands(paying, vendor) as worker:
        await worker.carry(RunId(run_id))

    row = await rig.row(RunId(run_id))
    assert ([used] if used else []) == [request.api_key for request in vendor.requests]
    assert (None if used else "missing_credentials") == row["error_code"]
    assert row["env_vars"] is None


async def test_a_secret_sealed_for_another_run_is_not_used(
    rig: Rig, deps: Deps, vendor: ScriptedProvider
) -> None:
    sealed = deps.vault.seal(b"{}", "runs", "env_vars", new_id(), rig.tenant.workspace_id)
    run_id = await rig.queued(model="openai/gpt-x", env_vars=base64(sealed))

    async with hands(deps, vendor) as worker:
        await worker.carry(run_id)

    row = await rig.row(run_id)
    assert ("failed", "secret_unreadable", []) == (
        row["status"],
        row["error_code"],
        vendor.requests,
    )
