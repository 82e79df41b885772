"""What a deployment has around it: a balancer before the APIs, and customers that do not stop."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

import aiohttp
from aiohttp import web

from shared.tasks import end
from tests.faults.waiting import until

HEALTH_S = 0.1
_HOP = frozenset({"host", "connection", "transfer-encoding", "content-length", "keep-alive"})


class Balancer:
    """Forwards to the APIs that are ready, as Caddy and nginx do; an async context manager.

    It tries another one where it could not connect, and never repeats what it had sent: who does
    that would submit runs twice. `answers` counts what the customers were answered.
    """

    def __init__(self) -> None:
        self.upstreams: list[str] = []
        self.answers: Counter[int] = Counter()
        self._ready: set[str] = set()
        self._turn = 0

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(10)
        )
        application = web.Application(client_max_size=1 << 23)
        application.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._looking = asyncio.create_task(self._look_forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        await end([self._looking])
        await self._runner.cleanup()
        await self._client.close()

    async def looked(self) -> None:
        """Wait until each of the APIs was found ready."""

        async def all_ready() -> bool:
            return set(self.upstreams) <= self._ready

        await until(all_ready, "every API is ready")

    async def _look_forever(self) -> None:
        while True:
            for url in list(self.upstreams):
                if await self._is_ready(url):
                    self._ready.add(url)
                else:
                    self._ready.discard(url)
            await asyncio.sleep(HEALTH_S)

    async def _is_ready(self, url: str) -> bool:
        try:
            async with self._client.get(f"{url}/readyz") as answer:
                return answer.status == web.HTTPOk.status_code
        except aiohttp.ClientError:
            return False

    async def _forward(self, request: web.Request) -> web.Response:
        answer = await self._answer(request)
        self.answers[answer.status] += 1
        return answer

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name: text for name, text in request.headers.items() if name.lower() not in _HOP}
        for url in self._in_turn():
            try:
                async with self._client.request(
                    request.method, f"{url}{request.path_qs}", data=body, headers=headers
                ) as answer:
                    media_type = {"Content-Type": answer.headers.get("Content-Type", "text/plain")}
                    text = await answer.read()
                    return web.Response(status=answer.status, body=text, headers=media_type)
            except aiohttp.ClientConnectorError:
                continue
            except aiohttp.ClientError as error:  # nobody knows what became of it
                return web.Response(status=502, text=type(error).__name__)
        return web.Response(status=503, text="no API is ready")

    def _in_turn(self) -> list[str]:
        ready = [url for url in self.upstreams if url in self._ready]
        self._turn += 1
        at = self._turn % max(len(ready), 1)
        return ready[at:] + ready[:at]


@asynccontextmanager
async def steadily(
    do: Callable[[int], Awaitable[object]], *, per_s: float, at_most: int
) -> AsyncIterator[None]:
    """Do something so often while the block lasts, whatever the earlier ones wait for."""
    doing: list[asyncio.Task[object]] = []

    async def begin() -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for number in range(at_most):
            await asyncio.sleep(max(0.0, began_at + number / per_s - loop.time()))
            doing.append(asyncio.ensure_future(do(number)))

    beginning = asyncio.create_task(begin())
    try:
        yield
        assert not beginning.done(), f"More than {at_most} would have been needed."
    finally:
        await end([beginning])
        await asyncio.gather(*doing)
