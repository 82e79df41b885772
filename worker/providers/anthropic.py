"""Anthropic's Messages API."""

from typing import Any

import anthropic
import msgspec

from shared.clock import Clock
from shared.domain import parameters
from shared.domain.calls import ANTHROPIC_MAX_TOKENS
from shared.domain.completions import Completion, CompletionRequest, Message, ToolCall, Usage
from shared.domain.states import IncompleteReason
from shared.domain.tools import EmitTool
from worker.providers import wire
from worker.providers.caller import Caller
from worker.providers.transport import Answer, HttpClient

NO_EFFORT = "none"
JSON_INSTRUCTION = "Answer with one JSON object and nothing else."

_INCOMPLETE = {
    "max_tokens": IncompleteReason.MAX_TOKENS,
    "model_context_window_exceeded": IncompleteReason.MAX_TOKENS,
    "refusal": IncompleteReason.CONTENT_FILTER,
}


class _Body(msgspec.Struct, omit_defaults=True):
    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    service_tier: str | None = None
    output_config: dict[str, Any] | None = None
    thinking: dict[str, str] | None = None
    tools: list[dict[str, Any]] | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: wire.Tokens | None = None


class _Usage(msgspec.Struct):
    input_tokens: wire.Tokens = 0
    output_tokens: wire.Tokens = 0
    cache_creation_input_tokens: wire.Tokens | None = None
    cache_read_input_tokens: wire.Tokens | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None


class _Block(msgspec.Struct):
    type: str
    text: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Reply(msgspec.Struct):
    content: list[_Block]
    stop_reason: str | None
    usage: msgspec.Raw
    model: str | None = None


_REPLY = msgspec.json.Decoder(_Reply)
_USAGE = msgspec.json.Decoder(_Usage)


class AnthropicProvider:
    """One client for the whole process; each call brings its own key."""

    name = "anthropic"

    def __init__(self, *, base_url: str, http_client: HttpClient, clock: Clock) -> None:
        sdk = anthropic.AsyncAnthropic(
            api_key="given with each call", base_url=base_url, max_retries=0
        )
        self._caller = Caller(sdk, "v1/messages", http_client=http_client, clock=clock)

    async def complete(self, request: CompletionRequest) -> Completion:
        wire.check_key(request)
        answer = await self._caller.post(request, msgspec.json.encode(_body(request)))
        return _completion(request, answer)

    async def aclose(self) -> None:
        await self._caller.aclose()


def _body(request: CompletionRequest) -> _Body:
    """Say it in Anthropic's words."""
    wanted = request.response_format or {}
    system = [message.content for message in request.messages if message.role == "system"]
    if wanted.get("type") == "json_object":
        system.append(JSON_INSTRUCTION)
    messages = tuple(message for message in request.messages if message.role != "system")
    if not messages:  # its API wants somebody to say something
        messages, system = (Message("user", "\n\n".join(system)),), []
    output: dict[str, Any] = {}
    if wanted.get("type") == "json_schema":
        output["format"] = {"type": "json_schema", "schema": wire.schema_of(wanted)}
    params = parameters.said(parameters.Kind.ANTHROPIC, request.params)
    effort = params.pop("effort", None)
    if effort is not None and effort != NO_EFFORT:
        output["effort"] = effort
    return _Body(
        model=request.model,
        messages=messages,
        system="\n\n".join(system) or None,
        output_config=output or None,
        tools=[_tool(tool) for tool in request.tools] or None,
        thinking={"type": "disabled"} if effort == NO_EFFORT else None,
        **{"max_tokens": ANTHROPIC_MAX_TOKENS, **params},
    )


def _tool(tool: EmitTool) -> dict[str, Any]:
    described = {} if tool.description is None else {"description": tool.description}
    return {"name": tool.name, "input_schema": wire.schema_of_tool(tool), **described}


def _said(blocks: list[_Block]) -> tuple[str | ToolCall, ...]:
    """Texts and calls in their order; nothing where there are no calls."""
    parts: list[str | ToolCall] = []
    for block in blocks:
        if block.type == "text":
            parts.append(wire.plain(block.text or ""))
        elif block.type == "tool_use":
            written = bytes(block.input).decode("utf-8", "replace")
            parts.append(ToolCall(wire.name(block.name or ""), written))
    return tuple(parts) if any(isinstance(part, ToolCall) for part in parts) else ()


def _completion(request: CompletionRequest, answer: Answer) -> Completion:
    """Decode an answer. One without any content is whole: the model may choose to say nothing."""
    request_id = wire.request_id(answer.headers)
    reply = wire.decode(_REPLY, answer.body, request_id)
    usage = wire.decode(_USAGE, bytes(reply.usage), request_id)
    return Completion(
        text=wire.plain(
            "".join(block.text or "" for block in reply.content if block.type == "text")
        ),
        model=wire.name(reply.model or request.model),
        usage=_usage(usage),
        usage_raw=wire.raw_usage(reply.usage),
        provider_request_id=request_id,
        service_tier=None if usage.service_tier is None else wire.name(usage.service_tier),
        incomplete=_INCOMPLETE.get(reply.stop_reason or ""),
        said=_said(reply.content) if request.tools else (),
        verbatim=wire.verbatim(request, answer.body),
    )


def _usage(usage: _Usage) -> Usage:
    """Anthropic's buckets are disjoint already; thinking is part of the output."""
    details = usage.output_tokens_details or _OutputDetails()
    return Usage(
        input=usage.input_tokens,
        cache_write=usage.cache_creation_input_tokens or 0,
        cache_read=usage.cache_read_input_tokens or 0,
        output=usage.output_tokens,
        reasoning=min(details.thinking_tokens or 0, usage.output_tokens),
    )
