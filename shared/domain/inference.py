"""A model called directly, without a prompt: what a request may hold, and its answer."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

import msgspec

from shared.domain import flow_answers, flow_runs
from shared.domain.completions import RunParams
from shared.domain.credits import credits_of
from shared.domain.flow_answers import CallUsage, Facts, Moment, SentCall
from shared.domain.flow_runs import FlowMessage, FlowRequest
from shared.domain.states import Lane, RunStatus
from shared.domain.submissions import Submission
from shared.domain.templates import Syntax
from shared.domain.versions import CompiledVersion, TemplateBody, VersionBody
from shared.errors import Flaw, UnacceptableError

SLUG = "inference"
VERSION = VersionBody("main", Syntax.BRACKETS, {"main": TemplateBody()})
"""What such runs are made of: nothing is said but what the request says."""
POINTERS: Mapping[str, str] = {
    name: pointer
    for name, pointer in (*flow_runs.POINTERS.items(), ("/params/topP", "/topP"))
    if name != "/model"
}


class InferenceRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body: messages for a model. What no prompt is needed for is as in a run of a flow."""

    messages: Annotated[list[FlowMessage], msgspec.Meta(min_length=1)]
    model: str
    environment: str | None = None
    tags: list[str] | None = None
    is_debug: bool | None = None
    max_tokens: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_thinking_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    response_schema: dict[str, Any] | None = None
    nonce: str | None = None
    log_level: Literal["Trace", "Debug", "Information", "Warning", "Error"] | None = None
    customer_id: str | None = None
    priority: Lane | None = None


class InferenceResult(msgspec.Struct, frozen=True):
    """Which model answered, and what it took."""

    model: str
    provider: str
    usage: CallUsage


class InferenceResponse(msgspec.Struct, frozen=True, rename="camel"):
    """What came back."""

    id: UUID
    id_created: Moment
    inference_request_id: UUID
    model: str
    provider: str
    usage: CallUsage
    text_response: str | None
    verbatim_response: str | None
    user_id: str | None
    milliseconds: int
    tenant_id: UUID
    shuttle_request_id: UUID


class InferencePair(msgspec.Struct, frozen=True, rename="camel"):
    """The call that answered, and its answer."""

    timestamp: Moment
    context_id: str | None
    request: SentCall
    response: InferenceResponse


class InferenceAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a direct call; `runId` names the run behind it."""

    credits_used: int
    llm_cost_credits: int
    credits_left: int | None
    milliseconds: int | None
    result: InferenceResult
    pair: InferencePair
    warnings: list[str]
    status: RunStatus
    run_id: UUID


def flow_request(request: InferenceRequest) -> FlowRequest:
    """The same in the words of a run of a flow."""
    return FlowRequest(
        messages=request.messages,
        override_model=request.model,
        environment=request.environment,
        tags=request.tags,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        max_thinking_tokens=request.max_thinking_tokens,
        response_schema=request.response_schema,
        nonce=request.nonce,
        log_level=request.log_level,
        customer_id=request.customer_id,
        priority=request.priority,
    )


def submission_of(request: InferenceRequest, debug_url: str | None) -> Submission:
    """The request in the words of a submission."""
    found = flow_runs.submission_of(flow_request(request), debug_url)
    params = msgspec.structs.replace(found.params or RunParams(), top_p=request.top_p)
    return msgspec.structs.replace(found, params=params)


def check(request: InferenceRequest) -> None:
    """Raise `UnacceptableError` for what would not be done."""
    flaws = [*_flaws(request)]
    if flaws:
        raise UnacceptableError(flaws[0].message, flaws=flaws)


def answer(facts: Facts, compiled: CompiledVersion) -> InferenceAnswer:
    """Put the answer together from a run that has one."""
    call, sent = facts.calls[-1], [*flow_answers.sent_calls(facts, compiled)][-1]
    back = flow_answers.call_answer(call)
    used = credits_of(facts.cost_nanousd or 0)
    return InferenceAnswer(
        credits_used=used,
        llm_cost_credits=used,
        credits_left=credits_of(facts.balance_nanousd),
        milliseconds=facts.milliseconds,
        result=InferenceResult(back.model, back.provider, back.usage),
        pair=InferencePair(
            timestamp=facts.created_at,
            context_id=None,
            request=sent,
            response=InferenceResponse(
                id=uuid5(facts.id, f"response {call.number}"),
                id_created=call.finished_at or call.started_at,
                inference_request_id=sent.id,
                model=back.model,
                provider=back.provider,
                usage=back.usage,
                text_response=back.text_response,
                verbatim_response=back.verbatim_response,
                user_id=None,
                milliseconds=call.milliseconds or 0,
                tenant_id=facts.workspace_id,
                shuttle_request_id=facts.id,
            ),
        ),
        warnings=[*flow_answers.answer_warnings(facts)],
        status=facts.status,
        run_id=facts.id,
    )


def _flaws(request: InferenceRequest) -> Iterator[Flaw]:
    if request.seed:
        yield Flaw("/seed", "Seeds are not supported; leave it out, or say 0.")
    if request.top_k is not None:
        yield Flaw("/topK", "This is not supported; leave it out.")
