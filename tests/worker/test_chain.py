"""Which model a run calls next, from nothing but the calls it has made."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.completions import FailureClass, ProviderError
from shared.domain.versions import TemplateBody
from shared.ids import RunId, new_id
from shared.store.claiming import ClaimedRun
from tests.worker.test_outcomes import _run as a_run
from worker import chain
from worker.chain import Then

A, B, C = "openai/a", "openai/b", "anthropic/c"
FALLBACKS = TemplateBody(fallbacks=(B, C))
PASSED_ON = [
    "provider_context_length",
    "provider_content_policy",
    "model_not_found",
    "provider_auth_failed",
    "provider_quota_exhausted",
]


def _tried(*calls: tuple[str, str, str]) -> str:
    rows = [
        {
            "provider": model.partition("/")[0],
            "model": model.partition("/")[2],
            "outcome": outcome,
            "error_code": code,
            "cost": None,
        }
        for model, outcome, code in calls
    ]
    return msgspec.json.encode(rows).decode()


def _claimed(*calls: tuple[str, str, str], **changes: Any) -> ClaimedRun:
    told = {"model": A, "tried": _tried(*calls) if calls else None}
    return a_run(**(told | changes))


def _failure(kind: FailureClass, code: str = "x") -> ProviderError:
    return ProviderError(kind, code=code, message="No.")


def _standing(run: ClaimedRun) -> tuple[str, ...]:
    return chain.standing(run, chain.models_of(run, FALLBACKS))


def test_a_run_may_call_its_model_and_its_fallbacks_each_once() -> None:
    assert (A, B, C) == chain.models_of(_claimed(), FALLBACKS)
    assert (B, C) == chain.models_of(_claimed(model=B), FALLBACKS)


def test_who_overrides_the_model_gets_no_other() -> None:
    assert (A,) == chain.models_of(_claimed(model_overridden=True), FALLBACKS)


@pytest.mark.parametrize("code", PASSED_ON)
def test_a_refusal_that_another_model_may_take_passes_the_run_on(code: str) -> None:
    run = _claimed()
    models = chain.models_of(run, FALLBACKS)

    then = chain.after(run, models, A, _failure(FailureClass.REFUSED, code))

    assert then is Then.ANOTHER
    assert (B, C) == _standing(_claimed((A, "refused", code)))


def test_any_other_refusal_is_final() -> None:
    run = _claimed()
    models = chain.models_of(run, FALLBACKS)

    assert chain.after(run, models, A, _failure(FailureClass.REFUSED)) is Then.THE_SAME


def test_the_last_model_that_refuses_leaves_none() -> None:
    run = _claimed((A, "refused", "model_not_found"), (B, "refused", "model_not_found"))
    models = chain.models_of(run, FALLBACKS)

    then = chain.after(run, models, C, _failure(FailureClass.REFUSED, "model_not_found"))

    assert then is Then.THE_SAME


@pytest.mark.parametrize("outcome", ["server_error", "unknown", "lost"])
def test_retries_go_to_the_first_model_until_one_call_is_left_for_each_fallback(
    outcome: str,
) -> None:
    failures = [(A, outcome, "x")] * 3

    found = [_standing(_claimed(*failures[:count], max_attempts=5)) for count in (1, 2, 3)]

    assert [(A, B, C), (A, B, C), (B, C)] == found


def test_what_was_never_carried_out_is_no_reason_to_go_on() -> None:
    free = [(A, "not_sent", "x"), (A, "not_started", "x")] * 5

    assert (A, B, C) == _standing(_claimed(*free))


def test_a_result_that_came_late_does_not_leave_a_run_without_a_model() -> None:
    refused = [(model, "refused", "model_not_found") for model in (A, B, C)]

    assert (A,) == _standing(_claimed(*refused, max_attempts=9))


@given(
    max_attempts=st.integers(1, 20),
    failures=st.lists(
        st.sampled_from(
            [
                (FailureClass.SERVER_ERROR, "x"),
                (FailureClass.UNKNOWN, "x"),
                (FailureClass.NOT_SENT, "x"),
            ]
            + [(FailureClass.REFUSED, code) for code in PASSED_ON]
        ),
        max_size=12,
    ),
)
def test_decided_at_the_call_or_read_from_its_row_the_next_model_is_the_same(
    max_attempts: int, failures: list[tuple[FailureClass, str]]
) -> None:
    """A crash between the two changes nothing: the one is what the other would say."""
    calls: list[tuple[str, str, str]] = []
    for kind, code in failures:
        run = _claimed(*calls, max_attempts=max_attempts, id=RunId(new_id()))
        models = chain.models_of(run, FALLBACKS)
        called = _standing(run)[0]
        then = chain.after(run, models, called, _failure(kind, code))
        calls.append((called, kind.value, code))
        next_one = _standing(_claimed(*calls, max_attempts=max_attempts))[0]
        if kind is FailureClass.REFUSED and then is Then.THE_SAME:
            return
        assert (then is Then.ANOTHER) == (next_one != called)
