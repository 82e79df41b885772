"""The answer of the flows door: every call as it was sent, beside what came back."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated
from uuid import UUID, uuid5

import msgspec

from shared.domain import calls, flow_runs, versions
from shared.domain.completions import Message, RunParams
from shared.domain.credits import credits_of
from shared.domain.flow_runs import FlowMessage, FlowRequest
from shared.domain.models import ModelName
from shared.domain.states import LIVE, RunStatus
from shared.domain.versions import CompiledVersion

Moment = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class CallError(msgspec.Struct, frozen=True):
    """Why a call brought no answer."""

    code: str
    message: str


class RunFailure(msgspec.Struct, frozen=True):
    """Why a run failed, and who has to act on it."""

    code: str
    message: str
    origin: str | None


class _Tokens(msgspec.Struct, frozen=True, rename="camel"):
    input: int = 0
    input_cached: int = 0
    input_cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    total: int = 0


class Call(msgspec.Struct, frozen=True, rename="camel"):
    """An attempt as the store tells it; `text` is what the model said, where it did."""

    number: int
    started_at: str
    finished_at: str | None
    milliseconds: int | None
    provider: str
    model: str
    outcome: str | None
    usage: _Tokens | None
    cost_nanousd: int | None
    text: str | None
    verbatim: str | None
    error: CallError | None


class Facts(msgspec.Struct, frozen=True, rename="camel"):
    """A run as the store tells it to this door; `balance_nanousd` is null without a meter."""

    id: UUID
    workspace_id: UUID
    flow_id: UUID
    version_id: UUID
    version: int
    environment: str
    status: RunStatus
    model: str
    flow: flow_runs.FlowPart | None
    inputs: dict[str, str]
    messages: tuple[Message, ...] | None
    params: RunParams | None
    cost_nanousd: int | None
    error: RunFailure | None
    incomplete_reason: str | None
    created_at: str
    finished_at: str | None
    milliseconds: int | None
    balance_nanousd: int | None
    calls: list[Call]
    erased: bool = False

    @property
    def done(self) -> bool:
        return self.status not in LIVE


class SentCall(msgspec.Struct, frozen=True, rename="camel"):
    """A call as it was sent. What was not set is null, but for `seed`, which is 0."""

    id: UUID
    id_created: Moment
    shuttle_request_id: UUID
    messages: list[FlowMessage]
    model: str
    max_tokens: int | None
    seed: int
    temperature: float | None
    top_p: float | None
    top_k: int | None


class CallUsage(msgspec.Struct, frozen=True, rename="camel"):
    """Tokens and cost of one call; where no price is known the cost is 0 and a warning says so."""

    tokens_in: int
    tokens_out: int
    tokens_total: int
    cost_usd: float
    cost_credits: int


class CallAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """What came back of the call in the same place of `requests`; texts are null if nothing did."""

    model: str
    provider: str
    usage: CallUsage
    text_response: str | None
    verbatim_response: str | None
    error: CallError | None


class RunUsage(msgspec.Struct, frozen=True, rename="camel"):
    """Tokens and credits of all calls together."""

    tokens_in: int
    tokens_out: int
    tokens_total: int
    tokens_cached: int
    tokens_cache_write: int
    tokens_reasoning: int
    cost_usd: float
    credits_used: int
    credits_left: int | None


class FlowAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """A run of the flows door. `responses` pairs with `requests`; the last one is the answer."""

    id: UUID
    timestamp: Moment
    credits_used: int
    milliseconds: int | None
    flow_id: UUID
    tenant_id: UUID
    user_id: str | None
    flow_request: FlowRequest
    requests: list[SentCall]
    responses: list[CallAnswer]
    credits_left: int | None
    usage: RunUsage
    warnings: list[str]
    status: RunStatus
    version: int
    version_id: UUID
    environment: str
    error: RunFailure | None


def answer(facts: Facts, compiled: CompiledVersion) -> FlowAnswer:
    """Put the answer together; `compiled` is the version from the run's entrypoint."""
    part = facts.flow
    ended = [call for call in facts.calls if call.outcome is not None]
    return FlowAnswer(
        id=facts.id,
        timestamp=facts.created_at,
        credits_used=credits_of(facts.cost_nanousd or 0),
        milliseconds=facts.milliseconds,
        flow_id=facts.flow_id,
        tenant_id=facts.workspace_id,
        user_id=None,
        flow_request=FlowRequest(parameters={**facts.inputs})
        if part is None
        else flow_runs.request_of(part, facts.inputs),
        requests=list(sent_calls(facts, compiled)),
        responses=[call_answer(call) for call in ended],
        credits_left=credits_of(facts.balance_nanousd),
        usage=_usage(facts),
        warnings=[*_warnings(facts, compiled)],
        status=facts.status,
        version=facts.version,
        version_id=facts.version_id,
        environment=facts.environment,
        error=facts.error,
    )


def call_id(run_id: UUID, number: int, of: str = "request") -> UUID:
    """The id under which this door names a call, or its answer: always the same."""
    return uuid5(run_id, f"{of} {number}")


def sent_calls(facts: Facts, compiled: CompiledVersion) -> Iterator[SentCall]:
    """The calls in the words of this door; a correction repeats what it corrects."""
    params = calls.params_of(compiled.settings, facts.params)
    messages = facts.messages or ()
    again = partial(calls.correction, with_tools=bool(compiled.settings.tools))
    for call in facts.calls:
        model = ModelName(call.provider, call.model)
        yield SentCall(
            id=call_id(facts.id, call.number),
            id_created=call.started_at,
            shuttle_request_id=facts.id,
            messages=list(flow_runs.in_door_words(messages)),
            model=call.model,
            max_tokens=calls.sent_cap(model, params),
            seed=0,
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=None,
        )
        if not facts.erased and call.error is not None and call.error.code == calls.MISSED:
            messages = (*messages, *again(call.text or "", call.error.message))


def call_answer(call: Call) -> CallAnswer:
    """What came back of one call."""
    tokens = call.usage or _Tokens()
    return CallAnswer(
        model=call.model,
        provider=call.provider,
        usage=CallUsage(
            tokens.input,
            tokens.output,
            tokens.total,
            _dollars(call.cost_nanousd),
            credits_of(call.cost_nanousd or 0),
        ),
        text_response=call.text,
        verbatim_response=call.verbatim,
        error=call.error,
    )


def _usage(facts: Facts) -> RunUsage:
    each = [call.usage for call in facts.calls if call.usage is not None]
    return RunUsage(
        tokens_in=sum(one.input for one in each),
        tokens_out=sum(one.output for one in each),
        tokens_total=sum(one.total for one in each),
        tokens_cached=sum(one.input_cached for one in each),
        tokens_cache_write=sum(one.input_cache_write for one in each),
        tokens_reasoning=sum(one.reasoning for one in each),
        cost_usd=_dollars(facts.cost_nanousd),
        credits_used=credits_of(facts.cost_nanousd or 0),
        credits_left=credits_of(facts.balance_nanousd),
    )


def _warnings(facts: Facts, compiled: CompiledVersion) -> Iterator[str]:
    for name in () if facts.erased else versions.missing(compiled, facts.inputs):
        yield f"'{name}' has neither a parameter nor a template: its token stays as it is."
    for name in versions.unused(compiled, facts.inputs):
        yield f"The parameter '{name}' is asked for by no token."
    yield from answer_warnings(facts)


def answer_warnings(facts: Facts) -> Iterator[str]:
    """What the answer lacks, and what the numbers and texts of its calls leave out."""
    if facts.erased:
        yield "What was asked and answered is erased: its environment keeps it no longer."
    if facts.incomplete_reason is not None:
        yield f"The answer is incomplete: {facts.incomplete_reason}."
    for call in facts.calls:
        if call.usage is not None and call.cost_nanousd is None:
            yield f"No price is known for {call.provider}/{call.model}: its cost counts as 0."
        if facts.flow is not None and call.text is not None and call.verbatim is None:
            most = flow_runs.VERBATIM_MAX_BYTES
            yield f"Answer {call.number} came in more than {most:,} bytes: only its text is kept."


def _dollars(nanousd: int | None) -> float:
    return (nanousd or 0) / 1_000_000_000
