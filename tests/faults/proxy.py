"""A TCP proxy that misbehaves on request, between the program and what it depends on."""

import asyncio
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

# Below the kernel's own: while a proxy is down, whoever dials it could be given its very port.
_PORTS = range(12_000, 20_000)
_PORT_TRIES = 20
_CHUNK_BYTES = 65_536
_NO_LINGER = struct.pack("ii", 1, 0)


class Way(StrEnum):
    """A direction: from the client to the server, or back."""

    THERE = "c2s"
    BACK = "s2c"


@dataclass(eq=False)
class _Link:
    """One connection through the proxy. `lose_reply` says that the next answer is never seen."""

    ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    lose_reply: bool = False
    passed_bytes: int = 0
    silent: bool = False
    tails: dict[Way, bytes] = field(default_factory=lambda: {Way.THERE: b"", Way.BACK: b""})

    def cut(self) -> None:
        """End both sides with a reset."""
        for writer in self.ends:
            _abort(writer)


@dataclass
class _Cut:
    pattern: bytes
    way: Way
    reply: bool
    times: int


class Proxy:
    """Forwards to one port; an async context manager. The mode also holds for open connections."""

    def __init__(self, target_port: int) -> None:
        self.cuts = 0
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._waiting: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._delay_s = 0.0
        self._slice_bytes = 0
        self._budget_bytes: int | None = None
        self._resets = False
        self._cut: _Cut | None = None

    async def __aenter__(self) -> Self:
        self._flows.set()
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def pass_on(self) -> None:
        """Be a good network again."""
        self._delay_s, self._slice_bytes, self._budget_bytes = 0.0, 0, None
        self._resets, self._cut = False, None
        self._flows.set()
        await self._listen()

    async def down(self) -> None:
        """Cut everything and refuse connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._cut_all()

    def reset(self) -> None:
        """Cut everything; whoever connects is reset at once."""
        self._resets = True
        self._cut_all()

    def blackhole(self) -> None:
        """Accept and forward nothing; what was held back goes on when the network is good again."""
        self._flows.clear()

    def silence(self) -> None:
        """Forward nothing more of what is connected now, for ever; new connections are well."""
        for link in self._links:
            link.silent = True

    def delay(self, seconds: float) -> None:
        """Hold each packet back for so long."""
        self._delay_s = seconds

    def slice(self, size_bytes: int) -> None:
        """Forward in pieces of this size."""
        self._slice_bytes = size_bytes

    def cut_after(self, size_bytes: int) -> None:
        """Cut each connection once it has passed so many bytes, counted both ways."""
        self._budget_bytes = size_bytes

    def cut_on(self, pattern: bytes, way: Way, *, times: int = 1) -> None:
        """Cut instead of forwarding what holds the pattern."""
        self._cut = _Cut(pattern, way, reply=False, times=times)

    def lose_reply_to(self, request: bytes, *, times: int = 1) -> None:
        """Forward the request that holds these bytes; cut instead of forwarding its answer."""
        self._cut = _Cut(request, Way.THERE, reply=True, times=times)

    async def _listen(self) -> None:
        if self._server is not None:
            return
        if self.port:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            return
        for port in random.sample(_PORTS, _PORT_TRIES):
            with suppress(OSError):
                self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
                self.port = port
                return
        raise OSError("no free port for a proxy")

    def _cut_all(self) -> None:
        for link in tuple(self._links):
            link.cut()
        for writer in tuple(self._waiting):
            _abort(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._resets:
            _abort(writer)
            return
        self._waiting.add(writer)
        try:
            await self._flows.wait()
            answers, requests = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            _abort(writer)
            return
        finally:
            self._waiting.discard(writer)
        link = _Link((writer, requests))
        self._links.add(link)
        await asyncio.gather(
            self._pump(link, Way.THERE, reader, requests),
            self._pump(link, Way.BACK, answers, writer),
        )
        self._links.discard(link)

    async def _pump(
        self, link: _Link, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._flows.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if link.silent:
                    continue
                if self._is_last(link, way, data):
                    self.cuts += 1
                    link.cut()
                    return
                for piece in self._pieces(data):
                    writer.write(piece)
                    await writer.drain()
        for end in link.ends:
            end.close()

    def _is_last(self, link: _Link, way: Way, data: bytes) -> bool:
        link.passed_bytes += len(data)
        if self._budget_bytes is not None and link.passed_bytes > self._budget_bytes:
            return True
        if way is Way.BACK and link.lose_reply:
            return True
        return self._matches(link, way, data)

    def _matches(self, link: _Link, way: Way, data: bytes) -> bool:
        cut = self._cut
        if cut is None or cut.way is not way:
            return False
        seen = link.tails[way] + data
        link.tails[way] = seen[-len(cut.pattern) + 1 :] if len(cut.pattern) > 1 else b""
        if cut.pattern not in seen:
            return False
        cut.times -= 1
        if cut.times <= 0:
            self._cut = None
        link.lose_reply = cut.reply
        return not cut.reply

    def _pieces(self, data: bytes) -> list[bytes]:
        size = self._slice_bytes or len(data)
        return [data[start : start + size] for start in range(0, len(data), size)]


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:  # or it is closed already
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
