"""The other ends: an OpenAI that answers at once, late, or on command; a receiver of webhooks.

Both run in the driver's process, on its clock: what a run's token did and when is in `Books`.
A run is known by its token, which travels in its inputs, comes back in the answer, and so arrives
with the webhook, whichever platform carries it.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from types import TracebackType
from typing import Self, cast

import httptools

from bench.errors import BenchError

_TOKEN = re.compile(rb"#([a-z]\d{8})#")
_SAID = b"Here is the answer. " * 15
_PLACE = b"#k00000000#"
HELD, NORMAL = "h", "k"
"""First letters of tokens: answered on `release`, or after `delay_s`."""


def _openai_answer() -> tuple[bytes, bytes]:
    body = (
        b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,'
        b'"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant",'
        b'"content":"' + _PLACE + b" " + _SAID + b'","refusal":null,"annotations":[]},'
        b'"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":42,'
        b'"completion_tokens":64,"total_tokens":106,"prompt_tokens_details":{"cached_tokens":0,'
        b'"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
        b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},'
        b'"service_tier":"default","system_fingerprint":"fp_bench"}'
    )
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
        b"openai-processing-ms: 1\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    before, _, after = (head + body).partition(_PLACE[1:-1])
    return before, after


_ANSWER_BEFORE, _ANSWER_AFTER = _openai_answer()
_RECEIVED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_LOST = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class Books:
    """What happened to each token, in monotonic seconds; uvloop's own clock knows only ms."""

    def __init__(self) -> None:
        self.called: dict[str, float] = {}
        self.answered: dict[str, float] = {}
        self.delivered: dict[str, float] = {}
        self.calls: Counter[str] = Counter()
        self.called_again: dict[str, float] = {}
        self.repeated_deliveries = 0
        self.arrivals: dict[tuple[bytes, str], float] = {}


class Peers:
    """An async context manager; `openai_url` and `webhook_url` are what platforms are told.

    Below `webhook_url`, paths that begin with `hang` are never answered; the others are noted each.
    """

    def __init__(self) -> None:
        self.books = Books()
        self.delay_s = 0.0
        self.spread = 0.0
        self._random = Random(1)  # noqa: S311 (chance that repeats)
        self.on_called: Callable[[str], object] | None = None
        self.on_delivered: Callable[[str], object] | None = None
        self._held: list[tuple[asyncio.Transport, str]] = []
        self._hanging: list[asyncio.Transport] = []
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tokens = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Peer(self), "127.0.0.1", self._port, backlog=4096
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def openai_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def webhook_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/webhook"

    def forget(self) -> None:
        """Start new books; what is still under way is not waited for."""
        self.books = Books()
        self.on_called = self.on_delivered = None

    def token(self, letter: str = NORMAL) -> str:
        self._tokens += 1
        return f"{letter}{self._tokens:08d}"

    def release(self) -> None:
        """Answer every held call."""
        held, self._held = self._held, []
        for transport, token in held:
            self._answer(transport, token)

    def hang_up(self) -> None:
        """Close the connections of webhooks that were never answered."""
        for transport in self._hanging:
            transport.abort()
        self._hanging.clear()

    async def until(
        self, holds: Callable[[Books], bool], timeout_s: float, what: str = "everything"
    ) -> None:
        """Wait until the books say so; raises `BenchError` when they do not in time."""
        deadline = time.monotonic() + timeout_s
        while not holds(self.books):
            if time.monotonic() > deadline:
                raise BenchError(
                    f"Waited {timeout_s:g} s for {what}: {len(self.books.called)} runs called, "
                    f"{len(self.books.answered)} answered, {len(self.books.delivered)} delivered."
                )
            await asyncio.sleep(0.002)

    def take(self, transport: asyncio.Transport, url: bytes, body: bytes) -> None:
        """Serve one request."""
        found = _TOKEN.search(body)
        if found is None:
            transport.write(_LOST)
        elif url == b"/webhook":
            self._deliver(found[1].decode())
            transport.write(_RECEIVED)
        elif url.startswith(b"/webhook/hang"):
            self._hanging.append(transport)
        elif url.startswith(b"/webhook/"):
            self.books.arrivals.setdefault((url, found[1].decode()), time.monotonic())
            transport.write(_RECEIVED)
        else:
            self._call(transport, found[1].decode())

    def _deliver(self, token: str) -> None:
        if token in self.books.delivered:
            self.books.repeated_deliveries += 1
            return
        self.books.delivered[token] = time.monotonic()
        if self.on_delivered is not None:
            self.on_delivered(token)

    def _call(self, transport: asyncio.Transport, token: str) -> None:
        loop = asyncio.get_running_loop()
        self.books.calls[token] += 1
        if self.books.calls[token] == 1:
            self.books.called[token] = time.monotonic()
            if self.on_called is not None:
                self.on_called(token)
        else:
            self.books.called_again.setdefault(token, time.monotonic())
        if token.startswith(HELD):
            self._held.append((transport, token))
        elif self.delay_s:
            delay_s = self.delay_s * self._random.uniform(1 - self.spread, 1 + self.spread)
            loop.call_later(delay_s, self._answer, transport, token)
        else:
            self._answer(transport, token)

    def _answer(self, transport: asyncio.Transport, token: str) -> None:
        if not transport.is_closing():
            self.books.answered.setdefault(token, time.monotonic())
            transport.write(_ANSWER_BEFORE + token.encode() + _ANSWER_AFTER)


class _Peer(asyncio.Protocol):
    """One connection of a platform to us."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport is not None:
            self._peers.take(self._transport, self._url, b"".join(self._body))
