"""The simulated vendor: answers, dawdles and fails on demand, and calls nobody."""

import asyncio
import sys
from collections.abc import Callable

import msgspec

from shared.domain.completions import (
    Completion,
    CompletionRequest,
    FailureClass,
    ModelParams,
    ProviderError,
    ToolCall,
    Usage,
)
from shared.domain.models import SimParams
from shared.domain.states import Billed, ErrorOrigin, IncompleteReason
from worker.providers import wire

SLOW_S = 2.0
RETRY_AFTER_S = 2.0


def params_of(params: ModelParams) -> SimParams:
    """Read `modelParams.sim`. Raises `msgspec.ValidationError`."""
    return msgspec.convert(dict(params.sim or {}), SimParams)


class SimProvider:
    """A provider like any other, for trying out webhooks, retries and timeouts for free."""

    name = "sim"

    async def complete(self, request: CompletionRequest) -> Completion:
        behave = _MODELS.get(request.model)
        if behave is None:
            raise _refused("model_not_found", f"There is no model {wire.name(request.model)!r}.")
        try:
            params = params_of(request.params)
        except msgspec.ValidationError as error:
            raise _refused("sim_params_invalid", f"modelParams.sim: {error}") from error
        delay_s = SLOW_S if request.model == "slow" else 0.0
        if params.delay_seconds is not None:
            delay_s = params.delay_seconds
        try:
            async with asyncio.timeout(request.timeout_s):
                if request.model == "hang":
                    await asyncio.Event().wait()
                if delay_s:
                    await asyncio.sleep(delay_s)
        except TimeoutError:
            failure = wire.unknown(
                "provider_timeout", f"No answer came within {request.timeout_s:g} s."
            )
        else:
            return behave(request, params)
        failure.provider_request_id = _request_id(request)
        raise failure

    async def aclose(self) -> None:
        """Nothing is open."""


def _echo(request: CompletionRequest, params: SimParams) -> Completion:
    """Where JSON is wanted, what the user said has to be it."""
    wants_text = (request.response_format or {}).get("type", "text") == "text"
    said = _said(request)
    return _answer(request, params, f"You said: {said}" if wants_text else said)


def _flaky(request: CompletionRequest, params: SimParams) -> Completion:
    answer = _echo(request, params)
    if request.attempt > 1:
        return answer
    raise ProviderError(
        FailureClass.SERVER_ERROR,
        code="provider_server_error",
        message="The first call of each run fails here, after having been billed.",
        billed=Billed.YES,
        provider_request_id=_request_id(request),
        usage=answer.usage,
    )


def _rate_limited(request: CompletionRequest, _: SimParams) -> Completion:
    raise ProviderError(
        FailureClass.NOT_STARTED,
        code="provider_rate_limited",
        message="This model is always over its rate limit.",
        retry_after_s=RETRY_AFTER_S,
        provider_request_id=_request_id(request),
    )


def _server_error(request: CompletionRequest, _: SimParams) -> Completion:
    raise ProviderError(
        FailureClass.SERVER_ERROR,
        code="provider_server_error",
        message="This model always fails.",
        provider_request_id=_request_id(request),
    )


def _disconnect(request: CompletionRequest, _: SimParams) -> Completion:
    raise wire.unknown(
        "provider_connection_lost",
        "The connection broke before the answer was complete.",
        _request_id(request),
    )


def _truncated(request: CompletionRequest, params: SimParams) -> Completion:
    answer = _answer(request, params, f"You said: {_said(request)} and then")
    return msgspec.structs.replace(answer, incomplete=IncompleteReason.MAX_TOKENS)


def _nul(request: CompletionRequest, params: SimParams) -> Completion:
    return _answer(request, params, f"before\x00after. You said: {_said(request)}")


def _emit(request: CompletionRequest, params: SimParams) -> Completion:
    """Call the first tool with what the user said."""
    answer = _echo(request, params)
    if not request.tools:
        return answer
    call = ToolCall(request.tools[0].name, _said(request))
    return msgspec.structs.replace(answer, said=(answer.text, call))


def _schema_broken(request: CompletionRequest, params: SimParams) -> Completion:
    return _answer(request, params, f'{{"said": {_said(request)}')


_MODELS: dict[str, Callable[[CompletionRequest, SimParams], Completion]] = {
    "echo": _echo,
    "slow": _echo,
    "flaky": _flaky,
    "429": _rate_limited,
    "500": _server_error,
    "hang": _echo,
    "truncated": _truncated,
    "nul": _nul,
    "schema-broken": _schema_broken,
    "disconnect": _disconnect,
    "emit": _emit,
}
MODELS = tuple(_MODELS)


def _answer(request: CompletionRequest, params: SimParams, text: str) -> Completion:
    cap = request.params.max_completion_tokens or sys.maxsize
    usage = Usage(
        input=sum(_tokens(message.content) for message in request.messages) or 1,
        output=min(params.output_tokens or _tokens(text), cap),
    )
    return Completion(
        text=wire.plain(text),
        model=request.model,
        usage=usage,
        usage_raw=msgspec.json.encode(usage),
        provider_request_id=_request_id(request),
        verbatim=_verbatim(request, text) if request.keeps_answer else None,
    )


def _verbatim(request: CompletionRequest, text: str) -> str | None:
    return wire.verbatim(request, msgspec.json.encode({"model": request.model, "text": text}))


def _said(request: CompletionRequest) -> str:
    spoken = [message.content for message in request.messages if message.role == "user"]
    said = spoken or [message.content for message in request.messages]
    return said[-1] if said else ""


def _tokens(text: str) -> int:
    return len(text) // 4 + 1


def _request_id(request: CompletionRequest) -> str:
    return f"sim-{request.run_id}-{request.attempt}"


def _refused(code: str, message: str) -> ProviderError:
    return ProviderError(
        FailureClass.REFUSED, code=code, message=message, origin=ErrorOrigin.TEMPLATE
    )
