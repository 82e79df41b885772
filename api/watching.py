"""Counting and tracing requests, around everything else that answers them."""

import time

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from litestar.types.asgi_types import Message

from shared import metrics, tracing
from shared.tracing import Kind, Span

NO_ROUTE = "none"
_SPAN = "span"
_TRACED = "/api/"
_TRACEPARENT = b"traceparent"
_FIRST_SERVER_STATUS = 500
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Watched:
    """ASGI middleware outside the guard, so that it counts what the guard refuses as well."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()
        status = 0
        span = _begin(scope) if tracing.on() and scope["path"].startswith(_TRACED) else None

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else metrics.OTHER
            route = scope.get("path_template") or NO_ROUTE
            metrics.REQUESTS.add(method, route, str(status))
            metrics.REQUEST_S.note(time.perf_counter() - began_s, method, route)
            if span is not None:
                _end(span, method, route, status)


def carry(scope: Scope) -> None:
    """Put a request's own span where the caller's was: what it submits belongs below it.

    That is behind the guard, which judges the header fields as they were sent.
    """
    span = scope["state"].get(_SPAN)
    if span is not None:
        others = [field for field in scope["headers"] if field[0] != _TRACEPARENT]
        scope["headers"] = [*others, (_TRACEPARENT, span.traceparent.encode())]


def _begin(scope: HTTPScope) -> Span:
    given = [value for name, value in scope["headers"] if name == _TRACEPARENT]
    parent = given[0].decode("latin-1") if given else None
    span = tracing.begin(scope["method"], Kind.SERVER, parent)
    scope.setdefault("state", {})[_SPAN] = span
    return span


def _end(span: Span, method: str, route: str, status: int) -> None:
    span.name(method if route == NO_ROUTE else f"{method} {route}")
    span.note(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
    )
    if status >= _FIRST_SERVER_STATUS or not status:
        span.fail(str(status))
    span.end()
