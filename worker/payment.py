"""Who pays for a call, what it may cost at most, and when that is too much."""

import msgspec

from shared.domain import calls
from shared.domain import credits as rules
from shared.domain.pricing import Prices
from shared.domain.states import AttemptOutcome, ErrorOrigin
from shared.store.claiming import ClaimedRun
from shared.store.ending import Outcome
from worker import chain
from worker.planning import GiveUpError, Plan

_DOUBTFUL = frozenset({AttemptOutcome.UNKNOWN.value, AttemptOutcome.LOST.value})


def by(run: ClaimedRun, outcome: Outcome) -> Outcome:
    """Say whose account an outcome moves, where that is watched."""
    if not run.accounted:
        return outcome
    return msgspec.structs.replace(outcome, account=str(run.workspace_id))


def worst_case(plan: Plan, prices: Prices | None, assumed_output_tokens: int) -> int:
    """What a call may cost at most, in nano-dollars."""
    cap = calls.output_cap(plan.model, plan.params)
    return rules.worst_case_nanousd(
        calls.input_tokens(plan.messages, plan.template),
        assumed_output_tokens if cap is None else cap,
        prices,
    )


def demand(run: ClaimedRun, call_nanousd: int) -> None:
    """Raise `GiveUpError` for a run whose next call might cost more than the run may.

    An earlier call of which nobody knows what it cost counts as much as the next one.
    """
    if run.max_nanousd is None:
        return
    doubtful = sum(one.outcome in _DOUBTFUL for one in chain.tried(run))
    if chain.known_cost(run).total + (1 + doubtful) * call_nanousd > run.max_nanousd:
        text = "The next call might cost more than this run may (maxRequestCostCredits)."
        raise GiveUpError("COST_LIMIT_EXCEEDED", text, ErrorOrigin.POLICY)
