"""What spans say of runs, calls and deliveries: OpenTelemetry's words where it has some.

Of calls those of its conventions for generative AI. What was said to a model, and by it, is there
only where the operator wants it.
"""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from shared import tracing
from shared.domain.completions import Completion, CompletionRequest, ProviderError, Usage
from shared.domain.states import IncompleteReason
from shared.store.claiming import ClaimedRun
from shared.store.deliveries import Try
from shared.store.ending import DueDelivery
from shared.tracing import Value

Attributes = Mapping[str, Value]

_FINISH = {
    None: "stop",
    IncompleteReason.MAX_TOKENS: "length",
    IncompleteReason.CONTENT_FILTER: "content_filter",
}


def of_run(run: ClaimedRun) -> Attributes:
    return {
        "runlane.run.id": str(run.id),
        "runlane.workspace.id": str(run.workspace_id),
        "runlane.environment.id": str(run.environment_id),
        "runlane.lane": run.lane.value,
        "runlane.claim": run.claim_no,
    }


def of_call(provider: str, request: CompletionRequest) -> Attributes:
    params = request.params
    asked: dict[str, Value | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": request.model,
        "gen_ai.request.max_tokens": params.max_completion_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.output.type": "json" if request.response_format else "text",
        "runlane.run.id": request.run_id,
        "runlane.attempt": request.attempt,
    }
    if tracing.contents():
        asked["gen_ai.input.messages"] = _json(
            {"role": one.role, "parts": [_text(one.content)]} for one in request.messages
        )
    return {name: value for name, value in asked.items() if value is not None}


def of_answer(completion: Completion) -> Attributes:
    finish = _FINISH.get(completion.incomplete, "error")
    said: dict[str, Value] = {
        "gen_ai.response.model": completion.model,
        "gen_ai.response.finish_reasons": [finish],
        **_of_usage(completion.usage),
    }
    if completion.provider_request_id is not None:
        said["runlane.provider.request_id"] = completion.provider_request_id
    if tracing.contents():
        parts = [_text(completion.text)]
        said["gen_ai.output.messages"] = _json(
            [{"role": "assistant", "parts": parts, "finish_reason": finish}]
        )
    return said


def of_failure(error: ProviderError) -> Attributes:
    said: dict[str, Value] = {"runlane.outcome": error.kind.value}
    if error.provider_request_id is not None:
        said["runlane.provider.request_id"] = error.provider_request_id
    if error.usage is not None:
        said.update(_of_usage(error.usage))
    return said


def of_delivery(due: DueDelivery) -> Attributes:
    """Of the address only the host: paths and queries of webhooks hold secrets."""
    said: dict[str, Value] = {
        "http.request.method": "POST",
        "server.address": urlsplit(due.url).hostname or "",
        "runlane.delivery.id": str(due.id),
        "runlane.delivery.try": due.tries + 1,
        "runlane.event.id": str(due.event_id),
        "runlane.event.type": due.event_type,
    }
    if due.run_id is not None:
        said["runlane.run.id"] = str(due.run_id)
    return said


def of_try(made: Try) -> Attributes:
    said: dict[str, Value] = {"runlane.delivery.status": made.status}
    if made.status_code is not None:
        said["http.response.status_code"] = made.status_code
    return said


def _of_usage(usage: Usage) -> Attributes:
    """Tokens as the conventions count them: the input holds what was cached."""
    return {
        "gen_ai.usage.input_tokens": usage.input + usage.cache_read + usage.cache_write,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
        "gen_ai.usage.output_tokens": usage.output,
    }


def _text(content: str) -> Mapping[str, str]:
    return {"type": "text", "content": content}


def _json(messages: Iterable[Mapping[str, object]]) -> str:
    return msgspec.json.encode(list(messages)).decode()
