"""An HTTP client that costs little: prebuilt requests over kept connections, one at a time."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from bench.errors import BenchError

ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Connection(asyncio.Protocol):
    """One kept connection; ask again only after the answer."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._body: list[bytes] = []

    async def ask(self, request: bytes) -> Answer:
        """Send a whole request and wait for its answer."""
        if self._transport is None or self._transport.is_closing():
            raise BenchError("The connection to the API is closed.")
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._transport.write(request)
        timer = loop.call_later(ANSWER_S, self._give_up)
        try:
            return await self._answer
        finally:
            timer.cancel()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"The API closed the connection ({exc}).")

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(self._parser.get_status_code(), b"".join(self._body)))

    def _give_up(self) -> None:
        self._fail(f"No answer within {ANSWER_S:g} s.")

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BenchError(why))


class Connections:
    """Some connections to one server, opened together."""

    def __init__(self, url: str, count: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._count = count
        self.all: list[Connection] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, connection = await loop.create_connection(Connection, self._host, self._port)
            self.all.append(connection)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in self.all:
            connection.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    async with Connections(url, 1) as connections:
        yield connections.all[0]


def request(
    method: str, path: str, key: str, body: object = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole request; `body` becomes JSON."""
    data = b"" if body is None else msgspec.json.encode(body)
    lines: Sequence[str] = (
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {key}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
        *(("Content-Type: application/json",) if body is not None else ()),
        f"Content-Length: {len(data)}",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + data
