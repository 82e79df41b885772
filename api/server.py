"""The web server: uvicorn's HTTP/1.1 protocol on our event loop, with bounds on slow clients.

uvicorn holds half a head open for ever and takes megabytes of it; the subclass below closes both.
Why uvicorn, and what was measured: docs/decisions/0003-web-server.md.
"""

import asyncio
import contextlib
import http
import socket
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final, cast

from litestar.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api import errors
from api.guard import new_request_id
from shared.errors import AppError, BadRequestError, HeadersTooLargeError, RequestTimeoutError

HEAD_MAX_BYTES: Final = 24 * 1024  # beyond what the guard judges exactly: target and header fields
MESSAGE_MAX_BYTES: Final = 16 * 1024 * 1024  # twice the longest body: the rest is not even dropped
KEEP_ALIVE_S: Final = 65  # longer than the minute usual among load balancers
LINGER_S: Final = 1.0
BACKLOG: Final = 2048
_BODY_FIELDS: Final = frozenset({b"content-length", b"transfer-encoding"})


class WebServer:
    """Serves one ASGI application on the running loop; its lifespan is the caller's business."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        receive_timeout_s: float,
        sock: socket.socket | None = None,
    ) -> None:
        self.port = port
        self._host = host
        self._sock = sock  # already bound: host and port do not count then
        self._receive_timeout_s = receive_timeout_s
        self._config = Config(
            app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="critical",  # what clients do wrong is answered, not logged
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            reset_contextvars=True,  # pipelined requests would inherit each other's log fields
        )
        self._config.load()
        self._state = _State()
        self._server: asyncio.Server | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._turning_away = False
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Listen; afterwards `port` is the real one. Raises `OSError` when the port is taken."""
        loop = asyncio.get_running_loop()
        if self._sock is None:
            self._server = await loop.create_server(
                self._protocol, self._host, self.port, backlog=BACKLOG
            )
        else:
            self._server = await loop.create_server(
                self._protocol, sock=self._sock, backlog=BACKLOG
            )
        self.port = self._server.sockets[0].getsockname()[1]
        self._tell_the_time()

    def turn_away(self) -> None:
        """Answer on, but end each connection with its next answer: others are to take over."""
        self._turning_away = True
        self._write_default_headers()

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let what is under way finish, and after the grace cut it off."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._finish(grace_s)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        await self._finish(LINGER_S)
        if self._clock is not None:
            self._clock.cancel()
        self._stopped.set()

    async def wait(self) -> None:
        """Wait until somebody has stopped the server."""
        await self._stopped.wait()

    async def _finish(self, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._state.tasks:
                    await asyncio.wait(list(self._state.tasks))
                await self._state.quiet.wait()

    def _protocol(self) -> "_Protocol":
        return _Protocol(self._config, self._state, self._receive_timeout_s)

    def _tell_the_time(self) -> None:
        self._write_default_headers()
        self._clock = asyncio.get_running_loop().call_later(1, self._tell_the_time)

    def _write_default_headers(self) -> None:
        closing = [(b"connection", b"close")] if self._turning_away else []
        date = (b"date", formatdate(usegmt=True).encode())
        self._state.default_headers = [date, *closing]


class _State(ServerState):
    """What the connections share; `quiet` is set while there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.quiet = asyncio.Event()
        self.quiet.set()


class _Protocol(HttpToolsProtocol):
    """One connection. A message that is not whole when the data ends has so long to become it.

    The timer runs only while bytes are missing, so an ordinary request, which comes in one piece,
    never starts one: from the connecting to the end of the head, then to the end of the body.
    """

    def __init__(self, config: Config, state: _State, receive_timeout_s: float) -> None:
        super().__init__(config, state, {})
        self._quiet = state.quiet
        self._receive_timeout_s = receive_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._head_open = False
        self._message_open = False
        self._received = 0  # bytes of the open message, not counting those that came with its start
        self._closing = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._quiet.clear()
        super().connection_made(transport)
        self._start_timer(self._receive_timeout_s, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        if not self.connections:
            self._quiet.set()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if not self._closing:
            super().data_received(data)
        if self._closing:
            if self._received > MESSAGE_MAX_BYTES:
                self.transport.abort()
            return
        if self._head_open and self._received > HEAD_MAX_BYTES:
            self._refuse(HeadersTooLargeError("The head of the request is too large."))
        elif self._received > MESSAGE_MAX_BYTES:
            self.transport.abort()
        else:
            self._watch()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_open = self._message_open = True
        self._received = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # may find that the target is none
        self._head_open = False
        self._stop_timer()  # the body has a time of its own
        self.headers = []  # trailers come here, and may not become headers afterwards

    def on_message_complete(self) -> None:
        self._message_open = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self._start_timer(self._receive_timeout_s, self.transport.abort)
        elif self._message_open and self.expect_100_continue:
            self._linger()  # nobody knows whether the body will still come

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequestError(msg))

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # it does not even read its answer
        else:
            super().timeout_keep_alive_handler()

    def _unsupported_upgrade_warning(self) -> None:
        """Answer as if nothing had been offered, and close: the parser has stopped at the head."""
        if any(name in _BODY_FIELDS and value != b"0" for name, value in self.scope["headers"]):
            self.cycle.more_body = True
            self._refuse(BadRequestError("Send the body without offering an upgrade."))
        else:
            self.cycle.keep_alive = False
            self._closing = True

    def _unanswered(self) -> RequestResponseCycle | None:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return None if cycle is None or cycle.response_complete else cycle

    def _watch(self) -> None:
        """Run the timer exactly while this connection owes us something."""
        idle = self._unanswered() is None and self.timeout_keep_alive_task is None
        if self._message_open or idle:
            if self._timer is None:
                self._start_timer(self._receive_timeout_s, self._too_slow)
        else:
            self._stop_timer()

    def _too_slow(self) -> None:
        if self._message_open:
            self._refuse(RequestTimeoutError("The request took too long to arrive."))
        else:
            self.transport.close()

    def _refuse(self, error: AppError) -> None:
        """Answer in the application's stead where that is still possible, then say goodbye."""
        cycle = self._unanswered()
        answered = cycle is None and self._message_open and not self._head_open
        if answered or (cycle is not None and (cycle.response_started or self.pipeline)):
            self.transport.abort()
            return
        if cycle is not None and not cycle.more_body:  # an earlier request: end after its answer
            cycle.keep_alive = False
            self._closing = True
            self._stop_timer()
            self.flow.pause_reading()
            return
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(_raw(error, self.server_state.default_headers))
        self._linger()

    def _linger(self) -> None:
        """Close our side and drop what still comes: closing at once would lose the answer."""
        self._closing = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._start_timer(LINGER_S, self.transport.abort)

    def _start_timer(self, delay_s: float, then: Callable[[], object]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(delay_s, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _raw(error: AppError, fields: list[tuple[bytes, bytes]]) -> bytes:
    request_id = new_request_id()
    body = errors.problem(error, request_id)
    head: list[tuple[Any, Any]] = [
        *(field for field in fields if field[0] != b"connection"),
        (b"content-type", errors.MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"x-request-id", request_id.encode()),
    ]
    status = http.HTTPStatus(error.status)
    start = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    return start + b"".join(b"%b: %b\r\n" % field for field in head) + b"\r\n" + body
