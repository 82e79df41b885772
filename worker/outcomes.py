"""What an answer or a failure means for a run: the one retry loop, as a pure decision."""

from random import Random
from typing import Any

import msgspec

from shared.domain import backoff, money
from shared.domain.completions import Completion, FailureClass, ProviderError
from shared.domain.pricing import Cost, Prices, cost_of
from shared.domain.states import (
    AttemptOutcome,
    Billed,
    ErrorOrigin,
    IncompleteReason,
    RunStatus,
    UnknownOutcome,
)
from shared.ids import RunId, SessionId
from shared.settings import Settings
from shared.store.claiming import ClaimedRun, Refusal
from shared.store.ending import Outcome
from worker import chain
from worker.chain import Then
from worker.checks import Judged

RETRIED = "retry_backoff"
PARKED = "provider_rate_limit"
CIRCUIT = "circuit_open"
FLAWLESS = Judged()
BUDGET = "budget_hold"


def answered(
    run: ClaimedRun,
    number: int,
    completion: Completion,
    prices: Prices | None,
    model: str,
    judged: Judged = FLAWLESS,
) -> Outcome:
    """The run has its answer, whole or not, and as its template wants it or not."""
    cost = None if prices is None else cost_of(completion.usage, prices)
    retries = chain.cost_so_far(run)
    usage = money.usage_json(completion.usage, completion.service_tier)
    incomplete = completion.incomplete
    status = RunStatus.SUCCEEDED if incomplete is None else RunStatus.INCOMPLETE
    outcome = Outcome(
        run_id=str(run.id),
        session_id=str(run.session_id),
        claim_no=run.claim_no,
        status=status.value,
        attempt=number,
        model=model,
        output=completion.text,
        incomplete_reason=None if incomplete is None else incomplete.value,
        token_usage=usage,
        **_spent(cost, retries),
        outcome=status.value,
        billed=Billed.YES.value,
        usage=usage,
        usage_raw=completion.usage_raw.decode("utf-8", "replace"),
        verbatim=completion.verbatim,
        attempt_cost=None if cost is None else money.cost_json(cost),
        attempt_cost_nanousd=None if cost is None else cost.total,
        price_version=None if prices is None else prices.version,
        provider_request_id=completion.provider_request_id,
        transcript=judged.transcript,
    )
    spent = money.total_of(cost, retries)
    return outcome if judged.miss is None else _missed(run, outcome, judged, spent)


def _spent(success: Cost | None, retries: Cost | None) -> dict[str, Any]:
    """A run's cost so far, or that it is not known."""
    if success is None or retries is None:
        return {"unpriced": True}
    total = success.total + retries.total
    return {"cost": money.run_cost_json(success, retries), "cost_nanousd": total}


def _missed(run: ClaimedRun, answer: Outcome, judged: Judged, spent: Cost | None) -> Outcome:
    """The answer is not what was asked for: have it corrected once, then hand it on as it is."""
    noted = msgspec.structs.replace(
        answer,
        outcome=AttemptOutcome.INCOMPLETE.value,
        last_error=judged.miss,
        attempt_error_code="schema_mismatch",
        attempt_error=judged.miss,
    )
    if judged.is_final or chain.miss_of(run) is not None or run.calls + 1 >= run.max_attempts:
        return msgspec.structs.replace(
            noted,
            status=RunStatus.INCOMPLETE.value,
            incomplete_reason=IncompleteReason.SCHEMA.value,
        )
    return msgspec.structs.replace(
        noted,
        status=RunStatus.QUEUED.value,
        model=None,
        token_usage=None,
        **_spent(Cost(), spent),
    )


def failed(
    run: ClaimedRun,
    number: int,
    error: ProviderError,
    prices: Prices | None,
    how: tuple[Settings, Random],
    then: Then = Then.THE_SAME,
) -> Outcome:
    """A call brought no answer: try again, go on to another model, park, or give up."""
    outcome = _ended(run, number, error, prices)
    given_up = _given_up(run, error, then)
    if given_up is not None:
        code, origin = given_up
        return msgspec.structs.replace(
            outcome,
            status=RunStatus.FAILED.value,
            error_code=code,
            error_message=error.message,
            error_origin=origin.value,
        )
    if then is Then.ANOTHER:
        return outcome
    settings, rng = how
    wait_s = backoff.retry_wait_s(
        run.attempts + 1, rng, base_s=settings.retry_backoff_s, cap_s=settings.retry_backoff_max_s
    )
    wait_s = backoff.told_wait_s(error.retry_after_s, wait_s, max_s=settings.retry_after_max_s)
    free = error.kind in {FailureClass.NOT_SENT, FailureClass.NOT_STARTED}
    return msgspec.structs.replace(
        outcome,
        delay_ms=round(wait_s * 1000),
        uncounted=1 if free else 0,
        status_reason=PARKED if error.kind is FailureClass.NOT_STARTED else RETRIED,
    )


def _ended(run: ClaimedRun, number: int, error: ProviderError, prices: Prices | None) -> Outcome:
    """The failed attempt, and its run back in the queue."""
    cost = None if prices is None or error.usage is None else cost_of(error.usage, prices)
    paid = Cost() if error.usage is None else cost
    is_free = prices is None and error.usage is None
    return Outcome(
        run_id=str(run.id),
        session_id=str(run.session_id),
        claim_no=run.claim_no,
        status=RunStatus.QUEUED.value,
        attempt=number,
        last_error=error.message,
        outcome=error.kind.value,
        billed=error.billed.value,
        usage=None if error.usage is None else money.usage_json(error.usage, None),
        **({} if is_free else _spent(Cost(), money.total_of(chain.cost_so_far(run), paid))),
        attempt_cost=None if cost is None else money.cost_json(cost),
        attempt_cost_nanousd=None if cost is None else cost.total,
        price_version=None if prices is None or cost is None else prices.version,
        provider_request_id=error.provider_request_id,
        attempt_error_code=error.code,
        attempt_error=error.message,
    )


def out_of_memory() -> ProviderError:
    """What a call failed with whose answer this process had no room for."""
    return ProviderError(
        FailureClass.UNKNOWN,
        code="worker_out_of_memory",
        message="The worker ran short of memory during the call.",
        origin=ErrorOrigin.PLATFORM,
        billed=Billed.UNKNOWN,
    )


def _given_up(run: ClaimedRun, error: ProviderError, then: Then) -> tuple[str, ErrorOrigin] | None:
    if error.kind is FailureClass.REFUSED and then is Then.THE_SAME:
        return error.code, error.origin
    if error.kind is FailureClass.UNKNOWN and run.on_unknown_outcome == UnknownOutcome.FAIL:
        return "outcome_unknown", error.origin
    counts = error.kind not in {FailureClass.NOT_SENT, FailureClass.NOT_STARTED}
    if counts and run.calls + 1 >= run.max_attempts:
        return error.code, error.origin
    return None


def refused(run: ClaimedRun, code: str, message: str, origin: ErrorOrigin) -> Outcome:
    """The run fails before any call."""
    return Outcome(
        run_id=str(run.id),
        session_id=str(run.session_id),
        claim_no=run.claim_no,
        status=RunStatus.FAILED.value,
        error_code=code,
        error_message=message,
        error_origin=origin.value,
        last_error=message,
    )


def overdue(run: ClaimedRun) -> Outcome:
    """The run fails: its time is over."""
    return refused(
        run,
        "deadline_exceeded",
        "The run was not done by its deadline.",
        ErrorOrigin.POLICY,
    )


def of_refusal(run: ClaimedRun, refusal: Refusal, money_wait_s: float) -> Outcome | None:
    """What a refused intent makes of the run; `None` when it is not ours any more."""
    match refusal.reason:
        case "money":
            return parked(run, BUDGET, money_wait_s)
        case "canceled":
            return canceled(run, 0, sent=False)
        case "exhausted":
            return refused(
                run, "attempts_exhausted", "Every allowed call was used up.", ErrorOrigin.POLICY
            )
        case _:
            return None


def parked(run: ClaimedRun, reason: str | None, wait_s: float) -> Outcome:
    """The run goes back without a call having been made."""
    return Outcome(
        run_id=str(run.id),
        session_id=str(run.session_id),
        claim_no=run.claim_no,
        status=RunStatus.QUEUED.value,
        status_reason=reason,
        delay_ms=round(wait_s * 1000),
    )


def unclaimed(run_id: RunId, session_id: SessionId, claim_no: int) -> Outcome:
    """The run goes back: nobody ever got to know that it was claimed."""
    return Outcome(
        run_id=str(run_id),
        session_id=str(session_id),
        claim_no=claim_no,
        status=RunStatus.QUEUED.value,
    )


def canceled(run: ClaimedRun, number: int, *, sent: bool) -> Outcome:
    """A user stopped the run; what the call under way cost is unknown."""
    retries = chain.cost_so_far(run)
    return Outcome(
        run_id=str(run.id),
        session_id=str(run.session_id),
        claim_no=run.claim_no,
        status=RunStatus.CANCELED.value,
        attempt=number,
        uncounted=1 if number and not sent else 0,
        outcome=AttemptOutcome.CANCELED.value if number else None,
        billed=(Billed.UNKNOWN if sent else Billed.NO).value if number else None,
        **({} if retries == Cost() else _spent(Cost(), retries)),
    )


def interrupted(run: ClaimedRun, number: int, *, sent: bool) -> Outcome:
    """The worker is going away: back to the queue, or what the run says of unknown outcomes."""
    if not number:
        return parked(run, None, 0)
    if not sent:
        return msgspec.structs.replace(
            parked(run, None, 0),
            attempt=number,
            uncounted=1,
            outcome=AttemptOutcome.NOT_SENT.value,
            billed=Billed.NO.value,
        )
    message = "The worker was stopped during the call."
    outcome = msgspec.structs.replace(
        parked(run, None, 0),
        attempt=number,
        outcome=AttemptOutcome.UNKNOWN.value,
        billed=Billed.UNKNOWN.value,
        last_error=message,
        attempt_error_code="worker_stopped",
        attempt_error=message,
    )
    last = run.calls + 1 >= run.max_attempts
    if run.on_unknown_outcome == UnknownOutcome.RETRY and not last:
        return outcome
    return msgspec.structs.replace(
        outcome,
        status=RunStatus.FAILED.value,
        error_code="outcome_unknown",
        error_message=message,
        error_origin=ErrorOrigin.PLATFORM.value,
    )


def broken(run: ClaimedRun, number: int, *, sent: bool) -> Outcome:
    """A fault of ours: the run fails, and says that it was not the caller's doing."""
    outcome = refused(
        run, "internal_error", "Something went wrong on our side.", ErrorOrigin.PLATFORM
    )
    if not number:
        return outcome
    kind = AttemptOutcome.UNKNOWN if sent else AttemptOutcome.NOT_SENT
    return msgspec.structs.replace(
        outcome,
        attempt=number,
        uncounted=0 if sent else 1,
        outcome=kind.value,
        billed=(Billed.UNKNOWN if sent else Billed.NO).value,
        attempt_error_code="internal_error",
        attempt_error="Something went wrong on our side.",
    )
