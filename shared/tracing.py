"""Traces: one for each run, from its submission through the queue and its call to its webhooks.

Off until `start`: nothing of OpenTelemetry's SDK is imported before, and a span is an object that
holds one string. Spans refer to each other by `traceparent` (W3C Trace Context), which is also how
a run carries its trace through the database.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as Recording
    from opentelemetry.trace import Tracer

Value = str | bool | int | float | Sequence[str]

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NANO = 1_000_000_000


class Kind(Enum):
    """What a span is to its trace; the values are OpenTelemetry's numbers."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2
    CONSUMER = 4


class Span:
    """A stretch of work. This one is recorded nowhere, and hands on what it was handed."""

    __slots__ = ("failure", "traceparent")

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent
        self.failure: str | None = None

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Say more about it."""

    def name(self, name: str) -> None:
        """Call it something better."""

    def fail(self, kind: str) -> None:
        """Say that it went wrong, and how, in a word or two."""
        self.failure = kind

    def end(self) -> None:
        """End it."""


class _Recorded(Span):
    """A span that is on its way to the collector, unless it was not sampled."""

    __slots__ = ("_recording",)

    def __init__(self, recording: "Recording") -> None:
        found = recording.get_span_context()
        super().__init__(f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}")
        self._recording = recording

    def note(self, attributes: Mapping[str, Value]) -> None:
        self._recording.set_attributes(attributes)

    def name(self, name: str) -> None:
        self._recording.update_name(name)

    def fail(self, kind: str) -> None:
        super().fail(kind)
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 (only where traces are on)

        self._recording.set_attribute("error.type", kind)
        self._recording.set_status(StatusCode.ERROR)

    def end(self) -> None:
        self._recording.end()


class _Tracing:
    """This process's tracer."""

    def __init__(self, provider: "TracerProvider", *, contents: bool) -> None:
        self.provider = provider
        self.tracer: Tracer = provider.get_tracer("runlane")
        self.contents = contents


_tracing: _Tracing | None = None


def on() -> bool:
    return _tracing is not None


def contents() -> bool:
    """Whether spans may hold what was said to a model, and what it said."""
    return _tracing is not None and _tracing.contents


def begin(
    name: str,
    kind: Kind,
    parent: str | None,
    attributes: Mapping[str, Value] | None = None,
    *,
    ago_s: float = 0,
) -> Span:
    """Begin a span below `parent`, a traceparent; without one, or a valid one, a new trace.

    `ago_s`: it began so long ago.
    """
    if _tracing is None:
        return Span(parent)
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 (only where traces are on)

    recording = _tracing.tracer.start_span(
        name,
        _context(parent),
        kind=SpanKind(kind.value),
        attributes=attributes,
        start_time=time.time_ns() - round(ago_s * _NANO),
    )
    return _Recorded(recording)


@contextmanager
def stretch(
    name: str, kind: Kind, parent: str | None, attributes: Mapping[str, Value] | None = None
) -> Iterator[Span]:
    """A span for the length of a block; an exception that leaves it is its failure."""
    span = begin(name, kind, parent, attributes)
    try:
        yield span
    except BaseException as error:
        if span.failure is None:
            span.fail(type(error).__name__)
        raise
    finally:
        span.end()


def start(endpoint: str, service: str, version: str, *, contents: bool) -> None:
    """Send spans to a collector (OTLP over HTTP, below this URL), from now until `stop`.

    Whatever else OpenTelemetry's own variables set is theirs: the service's name, resource
    attributes, samplers, headers, time-outs, sizes.
    """
    global _tracing  # noqa: PLW0603 (started once, so that code without traces pays nothing)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 (slow)
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    own = Resource.create({"service.name": service, "service.version": version})
    provider = TracerProvider(
        resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracing = _Tracing(provider, contents=contents)


def stop() -> None:
    """Send what is left, and no more; may take some seconds where the collector is away."""
    global _tracing
    if _tracing is not None:
        found, _tracing = _tracing, None
        found.provider.shutdown()


def _context(parent: str | None) -> "Context":
    from opentelemetry import context, trace  # noqa: PLC0415 (only where traces are on)

    parts = _TRACEPARENT.fullmatch(parent or "")
    if parts is None:
        return context.Context()
    found = trace.SpanContext(
        trace_id=int(parts[1], 16),
        span_id=int(parts[2], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(parts[3], 16)),
    )
    if not found.is_valid:
        return context.Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(found), context.Context())
