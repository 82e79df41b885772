"""What answers and failures mean for a run: every class, every policy, every count."""

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import money
from shared.domain.completions import Completion, FailureClass, ProviderError, Usage
from shared.domain.pricing import Cost, Prices, Rate, cost_of
from shared.domain.states import Billed, ErrorOrigin, IncompleteReason, Lane
from shared.ids import EnvironmentId, RunId, SessionId, VersionId, WorkspaceId, new_id
from shared.settings import Settings
from shared.store.claiming import ClaimedRun, Refusal
from shared.store.ending import Outcome
from worker import outcomes

PRICES = Prices("test", Rate(10**9), Rate(10**8), Rate(10**9), Rate(4 * 10**9))
USAGE = Usage(input=1000, cache_read=100, output=50, reasoning=20)
EARLIER = Cost(input=7, output=3, total=10)
FREE = {FailureClass.NOT_SENT, FailureClass.NOT_STARTED}


def _run(**changes: Any) -> ClaimedRun:
    columns: dict[str, Any] = {
        "id": RunId(new_id()),
        "session_id": SessionId(new_id()),
        "workspace_id": WorkspaceId(new_id()),
        "environment_id": EnvironmentId(new_id()),
        "version_id": VersionId(new_id()),
        "claim_no": 4,
        "lane": Lane.NORMAL,
        "inputs": "{}",
        "env_vars": None,
        "model": "openai/x",
        "models": None,
        "params": None,
        "flow": None,
        "calls": 0,
        "attempts": 0,
        "max_attempts": 3,
        "on_unknown_outcome": "retry",
        "turn": None,
        "history_read": False,
        "traceparent": None,
        "seconds_left": 60.0,
        "model_overridden": False,
        "tried": None,
        "variables_version": 0,
        "server_credentials": False,
    }
    return ClaimedRun(**(columns | changes))


def _completion(**changes: Any) -> Completion:
    fields: dict[str, Any] = {
        "text": "Hello",
        "model": "x-2026",
        "usage": USAGE,
        "usage_raw": b'{"total_tokens":1}',
        "provider_request_id": "req",
        "service_tier": "flex",
    }
    return Completion(**(fields | changes))


def _error(kind: FailureClass, **changes: Any) -> ProviderError:
    fields: dict[str, Any] = {"code": "provider_x", "message": "No."}
    return ProviderError(kind, **(fields | changes))


def _failed(run: ClaimedRun, error: ProviderError, **settings: Any) -> Outcome:
    return outcomes.failed(run, 1, error, PRICES, (Settings(**settings), Random(1)))


def _stored(cost: Cost) -> str:
    call = {"provider": "openai", "model": "x", "outcome": "server_error", "error_code": "y"}
    return msgspec.json.encode([{**call, "cost": money.cost_json(cost)}]).decode()


def test_an_answer_ends_the_run_with_tokens_and_cost_of_both_kinds() -> None:
    run = _run(tried=_stored(EARLIER))

    outcome = outcomes.answered(run, 2, _completion(), PRICES, "openai/x")

    cost = cost_of(USAGE, PRICES)
    assert (str(run.id), str(run.session_id), 4, 2) == (
        outcome.run_id,
        outcome.session_id,
        outcome.claim_no,
        outcome.attempt,
    )
    assert ("succeeded", "succeeded", "yes", "Hello", None, "req", "test") == (
        outcome.status,
        outcome.outcome,
        outcome.billed,
        outcome.output,
        outcome.incomplete_reason,
        outcome.provider_request_id,
        outcome.price_version,
    )
    assert money.run_cost_json(cost, EARLIER) == outcome.cost
    assert (cost.total + 10, cost.total) == (outcome.cost_nanousd, outcome.attempt_cost_nanousd)
    assert outcome.token_usage is not None
    assert "flex" == msgspec.json.decode(outcome.token_usage)["serviceTier"]


@pytest.mark.parametrize("reason", IncompleteReason)
def test_an_answer_that_is_not_whole_is_incomplete_with_its_reason(
    reason: IncompleteReason,
) -> None:
    outcome = outcomes.answered(_run(), 1, _completion(incomplete=reason), PRICES, "openai/x")

    assert ("incomplete", "incomplete", reason.value, "Hello") == (
        outcome.status,
        outcome.outcome,
        outcome.incomplete_reason,
        outcome.output,
    )


def test_without_a_price_the_cost_is_unknown_not_zero() -> None:
    outcome = outcomes.answered(_run(), 1, _completion(), None, "openai/x")

    assert (None, None, None, None) == (
        outcome.cost,
        outcome.cost_nanousd,
        outcome.attempt_cost,
        outcome.price_version,
    )
    assert outcome.token_usage is not None


@given(
    kind=st.sampled_from(FailureClass),
    policy=st.sampled_from(["retry", "fail"]),
    max_attempts=st.integers(1, 20),
    data=st.data(),
)
def test_no_failure_leads_to_more_calls_than_allowed(
    kind: FailureClass, policy: str, max_attempts: int, data: st.DataObject
) -> None:
    calls = data.draw(st.integers(0, max_attempts - 1))
    run = _run(calls=calls, max_attempts=max_attempts, on_unknown_outcome=policy)

    outcome = _failed(run, _error(kind))

    counted = calls + 1 - outcome.uncounted
    assert outcome.uncounted == (kind in FREE and outcome.status == "queued")
    if outcome.status == "queued":
        assert counted < max_attempts
        assert kind != FailureClass.REFUSED
        assert (kind, policy) != (FailureClass.UNKNOWN, "fail")
        assert 0 <= outcome.delay_ms <= 60_000
        assert outcome.error_code is None
    else:
        assert "failed" == outcome.status
        assert kind not in FREE
        assert outcome.error_code is not None
    assert (kind.value, "No.", "No.") == (
        outcome.outcome,
        outcome.last_error,
        outcome.attempt_error,
    )


@pytest.mark.parametrize(
    ("kind", "changes", "code"),
    [
        (FailureClass.REFUSED, {}, "provider_x"),
        (FailureClass.SERVER_ERROR, {"calls": 2}, "provider_x"),
        (FailureClass.UNKNOWN, {"calls": 2}, "provider_x"),
        (FailureClass.UNKNOWN, {"on_unknown_outcome": "fail"}, "outcome_unknown"),
        (FailureClass.UNKNOWN, {"on_unknown_outcome": "fail", "calls": 2}, "outcome_unknown"),
    ],
)
def test_a_failure_that_ends_the_run_says_why(
    kind: FailureClass, changes: dict[str, Any], code: str
) -> None:
    outcome = _failed(_run(**changes), _error(kind))

    assert ("failed", code, "provider", "No.", 0) == (
        outcome.status,
        outcome.error_code,
        outcome.error_origin,
        outcome.error_message,
        outcome.uncounted,
    )


def test_the_origin_of_a_refusal_is_the_providers_word() -> None:
    outcome = _failed(_run(), _error(FailureClass.REFUSED, origin=ErrorOrigin.CALLER))

    assert "caller" == outcome.error_origin


@pytest.mark.parametrize(
    ("told_s", "wait_ms"), [(2.0, 2000), (0.0, 0), (3600.0, 3_600_000), (9999.0, 3_600_000)]
)
def test_what_the_provider_asks_for_is_honoured_up_to_an_hour(told_s: float, wait_ms: int) -> None:
    outcome = _failed(_run(), _error(FailureClass.NOT_STARTED, retry_after_s=told_s))

    assert (wait_ms, "provider_rate_limit") == (outcome.delay_ms, outcome.status_reason)


def test_waits_grow_with_the_attempts() -> None:
    error = _error(FailureClass.SERVER_ERROR)
    waits = [
        max(
            outcomes.failed(
                _run(attempts=attempts, max_attempts=20), 1, error, None, (Settings(), Random(seed))
            ).delay_ms
            for seed in range(60)
        )
        for attempts in range(8)
    ]

    for wait_ms, most_s in zip(waits, [2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert 0.7 * most_s * 1000 < wait_ms <= most_s * 1000


def test_a_failed_call_that_cost_something_adds_to_the_retries() -> None:
    run = _run(tried=_stored(EARLIER))
    error = _error(FailureClass.UNKNOWN, usage=USAGE, billed=Billed.YES)

    outcome = _failed(run, error)

    cost = cost_of(USAGE, PRICES)
    assert ("yes", cost.total, cost.total + 10) == (
        outcome.billed,
        outcome.attempt_cost_nanousd,
        outcome.cost_nanousd,
    )
    assert money.run_cost_json(Cost(), money.sum_costs([cost, EARLIER])) == outcome.cost


@pytest.mark.parametrize(
    ("number", "sent", "expected"),
    [
        (0, False, (0, None, None)),
        (3, False, (1, "canceled", "no")),
        (3, True, (0, "canceled", "unknown")),
    ],
)
def test_a_canceled_run_counts_only_what_was_sent(
    number: int, expected: tuple[int, str | None, str | None], *, sent: bool
) -> None:
    outcome = outcomes.canceled(_run(), number, sent=sent)

    assert ("canceled", number) == (outcome.status, outcome.attempt)
    assert expected == (outcome.uncounted, outcome.outcome, outcome.billed)


@pytest.mark.parametrize(
    ("number", "sent", "changes", "expected"),
    [
        (0, False, {"on_unknown_outcome": "fail"}, ("queued", 0, None, None)),
        (2, False, {"on_unknown_outcome": "fail"}, ("queued", 1, "not_sent", None)),
        (2, True, {}, ("queued", 0, "unknown", None)),
        (2, True, {"calls": 2}, ("failed", 0, "unknown", "outcome_unknown")),
        (2, True, {"on_unknown_outcome": "fail"}, ("failed", 0, "unknown", "outcome_unknown")),
    ],
)
def test_an_interrupted_run_goes_back_unless_its_call_may_have_been_carried_out(
    number: int,
    changes: dict[str, Any],
    expected: tuple[str, int, str | None, str | None],
    *,
    sent: bool,
) -> None:
    outcome = outcomes.interrupted(_run(**changes), number, sent=sent)

    assert expected == (outcome.status, outcome.uncounted, outcome.outcome, outcome.error_code)
    assert 0 == outcome.delay_ms


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [("canceled", "canceled", None), ("exhausted", "failed", "attempts_exhausted")],
)
def test_a_refused_intent_ends_the_run(reason: str, status: str, code: str | None) -> None:
    outcome = outcomes.of_refusal(_run(), Refusal(reason), 1)

    assert outcome is not None
    assert (status, code, 0) == (outcome.status, outcome.error_code, outcome.attempt)


def test_a_lost_claim_is_nobodys_business_any_more() -> None:
    assert outcomes.of_refusal(_run(), Refusal("lost"), 1) is None


@pytest.mark.parametrize(
    ("number", "sent", "expected"),
    [
        (0, False, (0, None, None)),
        (2, False, (1, "not_sent", "no")),
        (2, True, (0, "unknown", "unknown")),
    ],
)
def test_a_fault_of_ours_is_the_platforms(
    number: int, expected: tuple[int, str | None, str | None], *, sent: bool
) -> None:
    outcome = outcomes.broken(_run(), number, sent=sent)

    assert ("failed", "internal_error", "platform") == (
        outcome.status,
        outcome.error_code,
        outcome.error_origin,
    )
    assert expected == (outcome.uncounted, outcome.outcome, outcome.billed)
