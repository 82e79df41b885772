"""Runs through the flows door: what a request may hold, and what of it is kept with the run.

The run itself is an ordinary one. Where the prompts door has no word for something, a `FlowPart`
beside the run does.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from shared.domain import prompts, schemas
from shared.domain.completions import Message, RunParams
from shared.domain.credits import MAX_CREDITS
from shared.domain.formats import JsonSchemaFormat, ResponseFormat
from shared.domain.states import Lane
from shared.domain.submissions import Submission
from shared.domain.versions import MAX_MESSAGES, CompiledVersion
from shared.errors import Flaw, UnacceptableError

MAX_CUSTOMER = 512
CUSTOMER = "customerId"
DEBUG_URL = "debugUrl"
VERBATIM_MAX_BYTES = 1024 * 1024
"""A longer answer of a vendor is not kept as it came; its text is."""

# What a budget of reasoning tokens means in the words that vendors know today.
_EFFORTS = ((0, "none"), (2_048, "low"), (8_192, "medium"))
_MOST = "high"
_TO_DOOR = {"user": "client"}
_FROM_DOOR = {"client": "user"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class FlowMessage(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A message in the door's words: the user's side is `client`. `content` will do for `text`."""

    role: Literal["system", "client", "user", "assistant"]
    text: str | None = None
    content: str | None = None


class FlowRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a run through the flows door; every field may be left out."""

    parameters: dict[str, str | None] | None = None
    environment: str | None = None
    override_model: str | None = None
    tags: list[str] | None = None
    entrypoint: str | None = None
    version: str | int | None = None
    messages: list[FlowMessage] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    max_thinking_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    max_tool_calls: Annotated[int, msgspec.Meta(ge=0)] | None = None
    response_schema: dict[str, Any] | None = None
    vendor_tools: list[str] | None = None
    nonce: str | None = None
    log_level: Literal["Trace", "Debug", "Information", "Warning", "Error"] | None = None
    customer_id: str | None = None
    max_request_cost_credits: Annotated[int, msgspec.Meta(ge=0, le=MAX_CREDITS)] | None = None
    priority: Lane | None = None


class FlowPart(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is kept beside a run of this door.

    `request` is the request's body without what the run itself and `messages` hold.
    """

    request: msgspec.Raw
    entrypoint: str | None = None
    messages: tuple[Message, ...] = ()
    response_format: ResponseFormat | None = None


_part = msgspec.json.Decoder(FlowPart)
_request = msgspec.json.Decoder(FlowRequest)


def read_part(stored: str | bytes) -> FlowPart:
    """Read what `FlowPart` was stored as."""
    return _part.decode(stored)


def check(request: FlowRequest) -> None:
    """Raise `UnacceptableError` with what the submission's own rules do not refuse."""
    flaws = [*_flaws(request)]
    if flaws:
        raise UnacceptableError(flaws[0].message, flaws=flaws)


def submission_of(request: FlowRequest, debug_url: str | None = None) -> Submission:
    """The request in the words of a submission."""
    given = {CUSTOMER: request.customer_id, DEBUG_URL: debug_url}
    return Submission(
        inputs={k: v for k, v in (request.parameters or {}).items() if v is not None},
        priority=request.priority or Lane.ONSITE,
        environment=request.environment,
        metadata={name: value for name, value in given.items() if value is not None},
        model=request.override_model,
        params=RunParams(
            max_completion_tokens=request.max_tokens,
            temperature=request.temperature,
            reasoning_effort=_effort(request.max_thinking_tokens),
            flow=_changes_the_call(request),
        ),
        tags=request.tags,
        max_request_cost_credits=request.max_request_cost_credits,
    )


def part_of(request: FlowRequest) -> FlowPart:
    """What is kept of a checked request."""
    asked = msgspec.to_builtins(request)
    asked["parameters"] = None if request.parameters is None else {}
    asked["messages"] = None if request.messages is None else []
    schema = request.response_schema
    return FlowPart(
        request=msgspec.Raw(
            msgspec.json.encode({name: value for name, value in asked.items() if value is not None})
        ),
        entrypoint=request.entrypoint,
        messages=tuple(_said(message) for message in request.messages or ()),
        response_format=None
        if schema is None
        else JsonSchemaFormat(name="response", schema=msgspec.json.encode(schema).decode()),
    )


def with_format(compiled: CompiledVersion, part: FlowPart) -> CompiledVersion:
    """The version with the answer's form that the request asks for, if it asks for one."""
    if part.response_format is None:
        return compiled
    settings = msgspec.structs.replace(compiled.settings, response_format=part.response_format)
    return msgspec.structs.replace(compiled, settings=settings)


def request_of(part: FlowPart, inputs: dict[str, str]) -> FlowRequest:
    """The request as it was made, for its echo."""
    asked = _request.decode(part.request)
    return msgspec.structs.replace(
        asked,
        parameters=None if asked.parameters is None else {**inputs},
        messages=None if asked.messages is None else list(in_door_words(part.messages)),
    )


def in_door_words(messages: Sequence[Message]) -> Iterator[FlowMessage]:
    """Messages as this door shows them."""
    for message in messages:
        role: Any = _TO_DOOR.get(message.role, message.role)
        yield FlowMessage(role, text=message.content)


def pointed(error: UnacceptableError, pointers: Mapping[str, str]) -> UnacceptableError:
    """The same error, pointing at the fields of this door's body."""
    flaws = [Flaw(pointers.get(flaw.pointer, flaw.pointer), flaw.message) for flaw in error.flaws]
    return UnacceptableError(error.detail, flaws=flaws, code=error.code)


POINTERS: Mapping[str, str] = {
    "/model": "/overrideModel",
    "/params/temperature": "/temperature",
    "/params/maxCompletionTokens": "/maxTokens",
    "/params/reasoningEffort": "/maxThinkingTokens",
    f"/metadata/{CUSTOMER}": "/customerId",
}


def _changes_the_call(request: FlowRequest) -> bool:
    beside = (request.entrypoint, request.messages, request.response_schema)
    return any(one is not None for one in beside)


def _said(message: FlowMessage) -> Message:
    role = _FROM_DOOR.get(message.role, message.role)
    return Message(role, (message.text if message.text is not None else message.content) or "")


def _effort(budget_tokens: int | None) -> str | None:
    if budget_tokens is None:
        return None
    return next((word for most, word in _EFFORTS if budget_tokens <= most), _MOST)


def _flaws(request: FlowRequest) -> Iterator[Flaw]:
    if request.vendor_tools:
        yield Flaw("/vendorTools", "Tools of the vendors are not supported; leave them out.")
    if request.version is not None:
        yield from prompts.version_flaws(_number(request.version))
    yield from message_flaws(request.messages or ())
    if request.response_schema is not None:
        flaw = schemas.flaw(msgspec.json.encode(request.response_schema).decode())
        if flaw is not None:
            yield Flaw("/responseSchema", flaw)
    customer = "-" if request.customer_id is None else request.customer_id
    if not 0 < len(customer) <= MAX_CUSTOMER or _CONTROL.search(customer):
        yield Flaw("/customerId", f"A customer's id is 1 to {MAX_CUSTOMER} printable characters.")


def message_flaws(messages: Sequence[FlowMessage]) -> Iterator[Flaw]:
    """Say what is wrong with the messages of a body."""
    if len(messages) > MAX_MESSAGES:
        yield Flaw("/messages", f"At most {MAX_MESSAGES} messages are accepted.")
    for place, message in enumerate(messages):
        if (message.text is None) == (message.content is None):
            yield Flaw(f"/messages/{place}", "A message has a text (or, instead, a content).")


def _number(version: str | int) -> str | int:
    found = prompts.number_of(str(version))
    return str(version) if found is None else found
