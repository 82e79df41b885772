"""What was said to a model stays out of traces, unless the operator wants it in."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from shared import tracing
from shared.domain.completions import FailureClass, Message, ProviderError, Usage
from tests.e2e.collector import Collector, Span
from tests.worker.execute_rig import ScriptedProvider, completion
from tests.worker.test_watching import a_request, watched

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
REQUEST = msgspec.structs.replace(
    a_request("gpt-5-mini"),
    messages=(Message("system", "Be brief."), Message("user", "What is it?")),
    traceparent=f"00-{TRACE}-{CALLER}-01",
)


@contextmanager
def traced(*, contents: bool) -> Iterator[list[Span]]:
    """The spans of the block, there behind it."""
    spans: list[Span] = []
    with Collector().listening() as collector:
        tracing.start(collector.url, "a service", "1.0", contents=contents)
        try:
            yield spans
        finally:
            tracing.stop()
        spans += collector.spans(TRACE)


async def test_a_call_is_told_without_what_was_said() -> None:
    inner = ScriptedProvider("openai")
    usage = Usage(input=10, cache_read=5, cache_write=1, output=7)
    inner.script.append(completion("It is a secret.", usage=usage, provider_request_id="req_1"))

    with traced(contents=False) as spans:
        await watched(inner).complete(REQUEST)

    (span,) = spans
    assert ("chat gpt-5-mini", CALLER, 3) == (span.name, span.parent, span.kind)
    assert inner.requests[0].traceparent == span.traceparent
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.output.type": "text",
        "gen_ai.response.model": "echo",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 16,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.cache_creation.input_tokens": 1,
        "gen_ai.usage.output_tokens": 7,
        "runlane.run.id": "a run",
        "runlane.attempt": 1,
        "runlane.provider.request_id": "req_1",
    } == span.attributes


async def test_a_call_is_told_with_what_was_said_where_that_is_wanted() -> None:
    inner = ScriptedProvider("openai")
    inner.script.append(completion("It is a secret."))

    with traced(contents=True) as spans:
        await watched(inner).complete(REQUEST)

    (span,) = spans
    asked = json.loads(str(span.attributes["gen_ai.input.messages"]))
    answered = json.loads(str(span.attributes["gen_ai.output.messages"]))
    assert [("system", "Be brief."), ("user", "What is it?")] == [
        (one["role"], one["parts"][0]["content"]) for one in asked
    ]
    assert [("assistant", "It is a secret.", "stop")] == [
        (one["role"], one["parts"][0]["content"], one["finish_reason"]) for one in answered
    ]


async def test_a_call_that_fails_is_told_by_code_and_not_by_the_vendors_words() -> None:
    inner = ScriptedProvider("openai")
    words = "The vendor quotes: What is it?"
    inner.script.append(ProviderError(FailureClass.REFUSED, code="provider_refused", message=words))

    with traced(contents=False) as spans, pytest.raises(ProviderError):
        await watched(inner).complete(REQUEST)

    (span,) = spans
    assert span.failed
    assert ("provider_refused", "refused") == (
        span.attributes["error.type"],
        span.attributes["runlane.outcome"],
    )
    assert "What is it?" not in str(span)
