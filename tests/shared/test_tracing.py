"""Spans belong where a traceparent says, and are nothing while traces are off."""

from collections.abc import Iterator

import pytest

from shared import tracing
from shared.tracing import Kind
from tests.e2e.collector import Collector, Span

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector().listening() as collector:
        tracing.start(collector.url, "a service", "1.0", contents=False)
        yield collector
        tracing.stop()


def _sent(collector: Collector, trace: str) -> list[Span]:
    tracing.stop()
    return collector.spans(trace)


def test_while_traces_are_off_a_span_hands_on_what_it_was_handed() -> None:
    with tracing.stretch("work", Kind.INTERNAL, "whatever it was") as span:
        span.note({"a": 1})
        span.name("other work")
        span.fail("badly")

    assert not tracing.on()
    assert not tracing.contents()
    assert "whatever it was" == span.traceparent


def test_a_span_belongs_below_the_one_it_names(collector: Collector) -> None:
    with tracing.stretch("work", Kind.CLIENT, f"00-{TRACE}-{CALLER}-01", {"a": 1}) as span:
        span.note({"b": ["x", "y"]})

    (sent,) = _sent(collector, TRACE)
    assert (CALLER, "work", "a service") == (sent.parent, sent.name, sent.service)
    assert {"a": 1, "b": ["x", "y"]} == sent.attributes
    assert sent.traceparent == span.traceparent
    assert not sent.failed


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        "00-ab",
        f"00-{TRACE.upper()}-{CALLER}-01",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{CALLER}-01-more",
    ],
)
def test_what_is_no_traceparent_begins_a_trace(collector: Collector, parent: str | None) -> None:
    with tracing.stretch("work", Kind.INTERNAL, parent) as span:
        pass

    assert span.traceparent is not None
    trace = span.traceparent.split("-")[1]
    assert trace != TRACE
    (sent,) = _sent(collector, trace)
    assert "" == sent.parent


def test_a_caller_that_does_not_sample_is_not_sampled(collector: Collector) -> None:
    with tracing.stretch("work", Kind.INTERNAL, f"00-{TRACE}-{CALLER}-00") as span:
        pass

    assert span.traceparent is not None
    assert span.traceparent.startswith(f"00-{TRACE}-")
    assert span.traceparent.endswith("-00")
    assert [] == _sent(collector, TRACE)


def test_an_error_that_leaves_a_span_is_its_failure(collector: Collector) -> None:
    def work() -> None:
        with tracing.stretch("work", Kind.INTERNAL, f"00-{TRACE}-{CALLER}-01"):
            raise LookupError("the text of an error may hold a prompt")

    with pytest.raises(LookupError):
        work()

    (sent,) = _sent(collector, TRACE)
    assert sent.failed
    assert {"error.type": "LookupError"} == sent.attributes
