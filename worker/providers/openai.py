"""OpenAI's Chat Completions, and every server that speaks them."""

from typing import Any

import msgspec
import openai

from shared.clock import Clock
from shared.domain import parameters
from shared.domain.completions import Completion, CompletionRequest, Message, ToolCall, Usage
from shared.domain.states import IncompleteReason
from shared.domain.tools import EmitTool
from shared.settings import CompatibleServer
from worker.providers import wire
from worker.providers.caller import Caller
from worker.providers.transport import Answer, HttpClient

_INCOMPLETE = {
    "length": IncompleteReason.MAX_TOKENS,
    "content_filter": IncompleteReason.CONTENT_FILTER,
}


class _Body(msgspec.Struct, omit_defaults=True):
    model: str
    messages: tuple[Message, ...]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    verbosity: str | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: wire.Tokens | None = None
    cache_write_tokens: wire.Tokens | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: wire.Tokens | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: wire.Tokens = 0
    completion_tokens: wire.Tokens = 0
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    service_tier: str | None = None


_REPLY = msgspec.json.Decoder(_Reply)
_USAGE = msgspec.json.Decoder(_Usage | None)


class OpenAiProvider:
    """One client for the whole process; each call brings its own key."""

    name = "openai"

    def __init__(self, *, base_url: str, http_client: HttpClient, clock: Clock) -> None:
        sdk = _sdk(base_url)
        self._caller = Caller(sdk, "chat/completions", http_client=http_client, clock=clock)

    async def complete(self, request: CompletionRequest) -> Completion:
        wire.check_key(request)
        answer = await self._caller.post(request, msgspec.json.encode(_body(request)))
        return _completion(request, answer)

    async def aclose(self) -> None:
        await self._caller.aclose()


class CompatibleProvider:
    """A server by name that speaks the same; `max_tokens` is the word that all of them know."""

    def __init__(
        self, name: str, server: CompatibleServer, *, http_client: HttpClient, clock: Clock
    ) -> None:
        self.name = name
        self._is_open = server.key_variable is None
        sdk = _sdk(server.base_url)
        header = None if server.header == "authorization" else server.header
        self._caller = Caller(
            sdk, "chat/completions", http_client=http_client, clock=clock, key_header=header
        )

    async def complete(self, request: CompletionRequest) -> Completion:
        if not self._is_open:
            wire.check_key(request)
        body = _body(request)
        body.max_tokens, body.max_completion_tokens = body.max_completion_tokens, None
        answer = await self._caller.post(request, msgspec.json.encode(body))
        return _completion(request, answer)

    async def aclose(self) -> None:
        await self._caller.aclose()


def _sdk(base_url: str) -> openai.AsyncOpenAI:
    sdk = openai.AsyncOpenAI(api_key="given with each call", base_url=base_url, max_retries=0)
    # The SDK takes these from the environment; with a tenant's key they would be wrong.
    sdk.organization = None
    sdk.project = None
    return sdk


def _body(request: CompletionRequest) -> _Body:
    """Say it in OpenAI's words."""
    return _Body(
        model=request.model,
        messages=request.messages,
        response_format=_response_format(request),
        tools=[_tool(tool) for tool in request.tools] or None,
        **parameters.said(parameters.Kind.OPENAI, request.params),
    )


def _tool(tool: EmitTool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": wire.schema_of_tool(tool)}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _said(message: _Message) -> tuple[str | ToolCall, ...]:
    """The text, then the calls behind it; nothing where there are none."""
    calls = [
        ToolCall(wire.name(call.function.name), call.function.arguments or "{}")
        for call in message.tool_calls or ()
        if call.function is not None
    ]
    return (wire.plain(message.content or ""), *calls) if calls else ()


def _response_format(request: CompletionRequest) -> dict[str, Any] | None:
    wanted = request.response_format or {}
    kind = wanted.get("type", "text")
    if kind == "text":
        return None
    if kind != "json_schema":
        return {"type": kind}
    schema: dict[str, Any] = {
        "name": wanted.get("name") or "answer",
        "schema": wire.schema_of(wanted),
    }
    for option in ("strict", "description"):
        if wanted.get(option) is not None:
            schema[option] = wanted[option]
    return {"type": "json_schema", "json_schema": schema}


def _completion(request: CompletionRequest, answer: Answer) -> Completion:
    request_id = wire.request_id(answer.headers)
    reply = wire.decode(_REPLY, answer.body, request_id)
    usage = wire.decode(_USAGE, bytes(reply.usage), request_id)
    if not reply.choices:
        raise wire.broken("The answer holds no choices.", request_id)
    choice = reply.choices[0]
    refused = choice.message.content is None and choice.message.refusal is not None
    return Completion(
        text=wire.plain(choice.message.content or choice.message.refusal or ""),
        model=wire.name(reply.model or request.model),
        usage=_usage(usage or _Usage()),
        usage_raw=wire.raw_usage(reply.usage),
        provider_request_id=request_id,
        service_tier=None if reply.service_tier is None else wire.name(reply.service_tier),
        incomplete=(
            IncompleteReason.CONTENT_FILTER
            if refused
            else _INCOMPLETE.get(choice.finish_reason or "")
        ),
        said=_said(choice.message) if request.tools else (),
        verbatim=wire.verbatim(request, answer.body),
    )


def _usage(usage: _Usage) -> Usage:
    """OpenAI counts cached tokens inside the prompt's, reasoning inside the output."""
    details = usage.prompt_tokens_details or _InputDetails()
    spent = usage.completion_tokens_details or _OutputDetails()
    cached = min(details.cached_tokens or 0, usage.prompt_tokens)
    written = min(details.cache_write_tokens or 0, usage.prompt_tokens - cached)
    return Usage(
        input=usage.prompt_tokens - cached - written,
        cache_write=written,
        cache_read=cached,
        output=usage.completion_tokens,
        reasoning=min(spent.reasoning_tokens or 0, usage.completion_tokens),
    )
