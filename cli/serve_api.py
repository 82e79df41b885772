"""The API as a process: listen, serve, and leave in good order."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg

from api.app import create_app
from api.rates import Limiter
from api.server import WebServer
from api.waiters import Waiters
from cli import liveness
from cli.serve import StartError, Stop, check, collect_rarely, opened
from shared import log, metrics
from shared.deps import Deps
from shared.services import keys
from shared.services.levels import Levels
from shared.settings import Settings

NOTE_USES_S = 30.0
_log = log.get(__name__)


async def serve_api(
    settings: Settings, stop: Stop, ready: Callable[[str], Awaitable[None]] | None = None
) -> None:
    """Serve requests until asked to stop. Raises `StartError`, also for a port that is taken."""
    async with opened(settings) as (state, lanes):
        await check(state, lanes)
        waiters, limiter = Waiters(state), Limiter(state)
        server = WebServer(
            create_app(state, waiters, limiter),
            host=settings.api_host,
            port=settings.api_port,
            receive_timeout_s=settings.receive_timeout_s,
        )
        try:
            await server.start()
        except OSError as error:
            raise StartError(
                f"Cannot listen on {settings.api_host}:{settings.api_port} "
                f"({error.strerror or error}): set API_PORT or API_HOST to something free."
            ) from error
        noting = asyncio.create_task(_note_uses_forever(state))
        try:
            url = f"http://{_url_host(settings.api_host)}:{server.port}"
            collect_rarely()
            _log.info("api_ready", url=url)
            if ready is not None:
                await ready(url)
            with metrics.looked_at(Levels(state, "api").look, waiters.look):
                async with liveness.shown(settings):
                    await stop.asked.wait()
                    await _linger(state, server, stop)
        finally:
            await waiters.close()
            await server.stop(settings.request_deadline_s)
            await limiter.close()
            noting.cancel()
            with suppress(psycopg.Error):
                await keys.note_uses(state)


async def _linger(state: Deps, server: WebServer, stop: Stop) -> None:
    """Tell whoever sends requests here to look elsewhere, and serve those that still come."""
    state.leaving.set()
    server.turn_away()
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.now.wait(), state.settings.api_linger_s)


async def _note_uses_forever(state: Deps) -> None:
    while True:
        await asyncio.sleep(NOTE_USES_S)
        try:
            await keys.note_uses(state)
        except psycopg.Error as error:
            _log.warning("key_uses_unwritten", error=type(error).__name__)


def _url_host(host: str) -> str:
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 (a comparison, nothing listens here)
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
