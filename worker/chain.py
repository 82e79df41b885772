"""Which model a run calls next: its own, then its fallbacks, judged by what was tried before.

All that is known comes from the rows of its attempts, so whoever claims the run next goes on where
it was.
"""

from collections.abc import Sequence
from decimal import Decimal
from enum import Enum, auto

import msgspec

from shared.domain import money
from shared.domain.completions import FailureClass, ProviderError
from shared.domain.pricing import Cost
from shared.domain.states import AttemptOutcome
from shared.domain.versions import TemplateBody
from shared.store.claiming import ClaimedRun
from worker.providers import wire

# What another model may take. The last two open the breaker of their credential at once.
_PASSED_ON = frozenset(
    {
        wire.CONTEXT_LENGTH,
        wire.CONTENT_POLICY,
        wire.UNKNOWN_MODEL,
        wire.AUTH_FAILED,
        wire.OUT_OF_QUOTA,
    }
)
_FREE = frozenset({AttemptOutcome.NOT_SENT.value, AttemptOutcome.NOT_STARTED.value})
_FAILED = frozenset(
    {
        AttemptOutcome.SERVER_ERROR.value,
        AttemptOutcome.UNKNOWN.value,
        AttemptOutcome.LOST.value,
    }
)


class Then(Enum):
    """Which model is next if there is to be a next call: a refusal is not repeated to the same."""

    THE_SAME = auto()
    ANOTHER = auto()


class Tried(msgspec.Struct, frozen=True):
    """An earlier call of a run; `outcome` is null while it is under way.

    `unpriced` are tokens without a price; `miss` is an answer that is not what the template wants,
    and why.
    """

    provider: str
    model: str
    outcome: str | None
    error_code: str | None
    cost: dict[str, Decimal] | None = None
    miss: tuple[str | None, str] | None = None
    unpriced: bool = False

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"


_tried = msgspec.json.Decoder(tuple[Tried, ...])


def tried(run: ClaimedRun) -> tuple[Tried, ...]:
    """The calls that a run made before this claim, in order."""
    return () if run.tried is None else _tried.decode(run.tried)


def cost_so_far(run: ClaimedRun) -> Cost | None:
    """What these calls cost; `None` where one used tokens that nobody knows the price of."""
    return None if any(one.unpriced for one in tried(run)) else known_cost(run)


def known_cost(run: ClaimedRun) -> Cost:
    """What those of these calls cost whose price is known."""
    return money.sum_costs(money.read_cost(one.cost) for one in tried(run) if one.cost is not None)


def miss_of(run: ClaimedRun) -> tuple[str, str] | None:
    """The answer that is to be corrected, and what was wrong with it."""
    for call in tried(run):
        if call.miss is not None:
            answer, why = call.miss
            return answer or "", why
    return None


def models_of(run: ClaimedRun, template: TemplateBody) -> tuple[str, ...]:
    """The run's model and its fallbacks, each once; who overrides the model wants no other.

    What an alias stood for was settled when the run was submitted.
    """
    if run.models is not None:
        return tuple(run.models)
    if run.model_overridden or not template.fallbacks:
        return (run.model,)
    return tuple(dict.fromkeys((run.model, *template.fallbacks)))


def standing(run: ClaimedRun, models: Sequence[str]) -> tuple[str, ...]:
    """The models that a run may still call, in order; with one model it is always that one."""
    if len(models) == 1 or run.tried is None:
        return tuple(models)
    return _standing(models, tried(run), run.max_attempts) or tuple(models[:1])


def after(run: ClaimedRun, models: Sequence[str], called: str, error: ProviderError) -> Then:
    """Where a run goes once this call has failed."""
    refused = error.kind is FailureClass.REFUSED
    if len(models) == 1 or (refused and error.code not in _PASSED_ON):
        return Then.THE_SAME
    provider, _, model = called.partition("/")
    failed = Tried(provider, model, error.kind.value, error.code)
    left = _standing(models, (*tried(run), failed), run.max_attempts)
    return Then.ANOTHER if left and called not in left else Then.THE_SAME


def _standing(models: Sequence[str], calls: Sequence[Tried], max_calls: int) -> tuple[str, ...]:
    """Walk through what was tried.

    A refusal ends a model; so does a failure when the calls that are left are only enough for one
    to each of the others.
    """
    left, made = list(models), 0
    for call in calls:
        if call.outcome in _FREE:
            continue
        made += 1
        others = len(left) - 1
        if call.name not in left:
            continue
        if call.outcome == AttemptOutcome.REFUSED.value:
            is_over = call.error_code in _PASSED_ON
        else:
            is_over = call.outcome in _FAILED and 0 < others and max_calls - made <= others
        if is_over:
            left.remove(call.name)
    return tuple(left)
