"""Receivers of webhooks that misbehave, each under a name of its own."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from email.utils import format_datetime
from typing import Self

from aiohttp import web

from shared.clock import SystemClock
from tests.faults.receiver import Receiver
from tests.faults.waiting import pause
from tests.vendors import gzip_bomb

TOLD_S = 2
LONG_BYTES = 10_000_000
NO_ANSWER = 0

Reaction = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadReceivers(Receiver):
    """Names of `ONCE` misbehave at their first delivery and then take it, those of `ALWAYS` always.

    `https://127.0.0.1:{tls_port}` shows a certificate of its own making.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__()
        self._tls = tls
        for name, (status, _) in ONCE.items():
            self.script(name, [status])
        for name, (status, _) in ALWAYS.items():
            self.script(name, [status] * 100)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        return self

    @property
    def tls_port(self) -> int:
        return int(self._runner.addresses[1][1])

    def visits(self, name: str) -> int:
        """How many deliveries have come in under a name."""
        return sum(hook.endpoint == name for hook in self.ledger)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        good = await super()._take(request)
        bad = ALWAYS.get(name) or (ONCE.get(name) if self.visits(name) == 1 else None)
        if bad is None:
            return good
        try:
            return await bad[1](request)
        except ConnectionError:  # the sender had enough
            return good


def _says(status: int, **headers: str) -> Reaction:
    async def react(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, headers=named)

    return react


async def _names_a_date(_: web.Request) -> web.StreamResponse:
    date = SystemClock().now() + timedelta(seconds=TOLD_S)
    headers = {"retry-after": format_datetime(date, usegmt=True)}
    return web.Response(status=503, headers=headers)


async def _hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


async def _resets(request: web.Request) -> web.StreamResponse:
    _way_back(request).abort()
    return web.Response()


async def _talks_ssh(request: web.Request) -> web.StreamResponse:
    _way_back(request).write(b"SSH-2.0-OpenSSH_9.9\r\n")
    _way_back(request).close()
    return web.Response()


async def _drips_a_head(request: web.Request) -> web.StreamResponse:
    _way_back(request).write(b"HTTP/1.1 200 OK\r\nx-slow: ")
    while not _way_back(request).is_closing():
        _way_back(request).write(b"a")
        await pause(0.05)
    return web.Response()


async def _drips_a_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"a")
        await pause(0.05)


async def _talks_long(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"a" * LONG_BYTES)


async def _explodes(_: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip_bomb(), headers={"content-encoding": "gzip"})


def _way_back(request: web.Request) -> asyncio.WriteTransport:
    if request.transport is None:
        raise ConnectionResetError("The sender went away.")
    return request.transport


ONCE: Mapping[str, tuple[int, Reaction]] = {
    "error": (500, _says(500)),
    "moved": (302, _says(302, location="/hooks/elsewhere")),
    "told": (429, _says(429, retry_after=str(TOLD_S))),
    "dated": (503, _names_a_date),
    "silent": (NO_ANSWER, _hangs),
    "slow-head": (NO_ANSWER, _drips_a_head),
    "reset": (NO_ANSWER, _resets),
    "ssh": (NO_ANSWER, _talks_ssh),
}
ALWAYS: Mapping[str, tuple[int, Reaction]] = {
    "gone": (410, _says(410)),
    "slow-body": (200, _drips_a_body),
    "long": (200, _talks_long),
    "bomb": (200, _explodes),
}
