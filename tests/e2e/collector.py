"""A collector of traces on loopback: OTLP over HTTP, as a real one takes it."""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from tests.e2e.receiver import serving


@dataclass(frozen=True)
class Span:
    """A span as it arrived; ids in hex, `parent` empty at the root of a trace."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    began_ns: int
    ended_ns: int
    failed: bool
    attributes: Mapping[str, object]

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace}-{self.id}-01"


class Collector:
    """Takes everything that is posted to `/v1/traces`."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self, trace: str) -> list[Span]:
        """The spans of one trace until now, in the order of their beginnings."""
        found = [span for span in list(self._spans) if span.trace == trace]
        return sorted(found, key=lambda span: span.began_ns)

    @contextmanager
    def listening(self) -> Iterator["Collector"]:
        with serving(self._server):
            yield self

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        kept = self._spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                kept.extend(_read(body))
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("content-type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, *_: object) -> None:
                """Say nothing: what came in is in the list."""

        return Handler


def _read(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = str(_values(resource.resource.attributes)["service.name"])
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=service,
                    name=span.name,
                    kind=span.kind,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    began_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    attributes=_values(span.attributes),
                )


def _values(attributes: Sequence[KeyValue]) -> dict[str, object]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: AnyValue) -> object:
    if value.HasField("array_value"):
        return [_value(one) for one in value.array_value.values]
    return getattr(value, value.WhichOneof("value") or "string_value")
