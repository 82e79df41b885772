"""OpenAI's Chat Completions, and every server that speaks them (`OPENAI_BASE_URL`)."""

from typing import Any

import httpx2
import msgspec
import openai

from shared.clock import Clock
from shared.domain.completions import Completion, CompletionRequest, Message, Usage
from shared.domain.states import IncompleteReason
from worker.providers import wire
from worker.providers.transport import HttpClient

_INCOMPLETE = {
    "length": IncompleteReason.MAX_TOKENS,
    "content_filter": IncompleteReason.CONTENT_FILTER,
}


class _Body(msgspec.Struct, omit_defaults=True):
    model: str
    messages: tuple[Message, ...]
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    verbosity: str | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    response_format: dict[str, Any] | None = None


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


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


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
        self._clock = clock
        self._client = openai.AsyncOpenAI(
            api_key="given with each call",
            base_url=base_url,
            max_retries=0,
            http_client=http_client,
            default_headers={"Accept-Encoding": "gzip"},
        )
        # The SDK takes these from the environment; with a tenant's key they would be wrong.
        self._client.organization = None
        self._client.project = None

    async def complete(self, request: CompletionRequest) -> Completion:
        wire.check_key(request)
        # The low-level post leaves the body alone both ways: half the cost of `create()`.
        try:
            response = await self._client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                content=msgspec.json.encode(_body(request)),
                options={"headers": self._headers(request), "timeout": request.timeout_s},
            )
        except openai.APIStatusError as error:
            raise wire.from_status(
                error.status_code, error.body, error.response.headers, request, self._clock.now()
            ) from None  # the SDK's text may repeat the key
        return _completion(request, response)

    async def aclose(self) -> None:
        await self._client.close()

    def _headers(self, request: CompletionRequest) -> dict[str, str]:
        keyed = self._client.with_options(api_key=request.api_key)
        return {**wire.call_headers(request), **keyed.auth_headers}


def _body(request: CompletionRequest) -> _Body:
    """Say it in OpenAI's words. Chat Completions know no summary of the reasoning."""
    params = request.params
    return _Body(
        model=request.model,
        messages=request.messages,
        max_completion_tokens=params.max_completion_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        verbosity=params.verbosity,
        reasoning_effort=params.reasoning_effort,
        service_tier=params.service_tier,
        response_format=_response_format(request),
    )


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


def _completion(request: CompletionRequest, response: httpx2.Response) -> Completion:
    request_id = wire.request_id(response.headers)
    reply = wire.decode(_REPLY, response.content, request_id)
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
