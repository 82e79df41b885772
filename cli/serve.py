"""Running the API and the worker as processes: start, serve, and leave in good order."""

import asyncio
import gc
import importlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import SystemRandom

import psycopg

from api.app import create_app
from api.server import WebServer
from api.waiters import Waiters
from cli import database
from shared import crashpoints, deps, log
from shared.clock import SystemClock
from shared.deps import Deps
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.services import keys, readiness
from shared.settings import Settings
from shared.store import schema
from shared.store.database import Store
from worker.main import WorkerProcess

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    new_event_loop = importlib.import_module("uvloop").new_event_loop
except ImportError:  # no wheel for Windows
    new_event_loop = asyncio.new_event_loop

CONNECT_S = 10.0
NOTE_USES_S = 30.0
_log = log.get(__name__)

__all__ = ["StartError", "Stop", "new_event_loop", "opened", "serve_api", "serve_worker"]


class StartError(Exception):
    """The process cannot start; the message is one sentence for the person who started it."""


class Stop:
    """Set by signals: the first asks for an orderly end, the second for an immediate one."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.now = asyncio.Event()

    def listen(self) -> None:
        """Take over SIGTERM, SIGINT and SIGQUIT (at once) of this process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask)
        loop.add_signal_handler(signal.SIGQUIT, self._ask_now)

    def _ask(self) -> None:
        if self.asked.is_set():
            self.now.set()
        self.asked.set()

    def _ask_now(self) -> None:
        self.asked.set()
        self.now.set()


@asynccontextmanager
async def opened(settings: Settings, *, worker: bool = False) -> AsyncIterator[tuple[Deps, Lanes]]:
    """Connect to the servers of the settings and check the schema. Raises `StartError`."""
    if settings.crash_point:
        try:
            crashpoints.arm(settings.crash_point)
        except ValueError as error:
            raise StartError(f"{error}.") from error
    lanes = _lanes(settings)
    store = await _store(settings, worker=worker)
    try:
        found = await schema.revision(store)
        if found != schema.EXPECTED:
            raise StartError(
                f"The database has schema {found}, this version needs {schema.EXPECTED}: "
                "run `runlane migrate`."
            )
        clock = SystemClock(settings.clock_skew_s)
        yield deps.build(settings, clock, SystemRandom(), store, lanes), lanes
    finally:
        await store.close()
        await lanes.aclose()


async def serve_api(
    settings: Settings, stop: Stop, ready: Callable[[str], Awaitable[None]] | None = None
) -> None:
    """Serve requests until asked to stop. Raises `StartError`, also for a port that is taken."""
    async with opened(settings) as (state, _):
        waiters = Waiters(state)
        server = WebServer(
            create_app(state, waiters),
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
            gc.freeze()  # what was made at start stays: no collection need look at it
            _log.info("api_ready", url=url)
            if ready is not None:
                await ready(url)
            await stop.asked.wait()
        finally:
            await waiters.close()
            await server.stop(settings.request_deadline_s)
            noting.cancel()
            with suppress(psycopg.Error):
                await keys.note_uses(state)


async def serve_worker(settings: Settings, stop: Stop) -> None:
    """Work until asked to stop, then drain. Raises `StartError`, or what broke the worker."""
    async with opened(settings, worker=True) as (state, lanes):
        await _check_redis(state, lanes)
        process = WorkerProcess(state, lanes)
        await process.start()
        _log.info("worker_ready", slots=settings.slots)
        try:
            await _until_stopped(process, stop)
            draining = asyncio.ensure_future(process.drain())
            at_once = asyncio.ensure_future(stop.now.wait())
            await asyncio.wait({draining, at_once}, return_when=asyncio.FIRST_COMPLETED)
            draining.cancel()
            at_once.cancel()
        finally:
            await process.stop()


async def _until_stopped(process: WorkerProcess, stop: Stop) -> None:
    while not stop.asked.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.asked.wait(), 1.0)
        error = process.failed()
        if error is not None:
            raise error


async def _store(settings: Settings, *, worker: bool) -> Store:
    url = settings.database_url.get_secret_value()
    if not url:
        raise StartError("DATABASE_URL is not set: name a PostgreSQL, or use `runlane dev`.")
    try:
        database.read(url)
        store = Store(
            url,
            size=settings.worker_pool if worker else settings.api_pool,
            wait_s=settings.pool_wait_s,
            statement_timeout_s=(
                settings.maintenance_timeout_s if worker else settings.statement_timeout_s
            ),
            lock_timeout_s=settings.lock_timeout_s,
        )
        await _probe(url)
        await store.open(wait_s=CONNECT_S)
    except (psycopg.Error, OSError, UnicodeError) as error:
        raise StartError(
            f"The database of DATABASE_URL cannot be used ({_first_line(error)})."
        ) from error
    return store


async def _probe(url: str) -> None:
    """Try one connection by itself: its error says more than a pool's time-out."""
    connection = await psycopg.AsyncConnection.connect(url, connect_timeout=database.CONNECT_S)
    await connection.close()


def _lanes(settings: Settings) -> Lanes:
    url = settings.redis_url.get_secret_value()
    if not url:
        raise StartError("REDIS_URL is not set: name a Redis or Valkey, or use `runlane dev`.")
    try:
        return connect(
            url,
            timeout_s=settings.redis_timeout_s,
            connect_timeout_s=settings.redis_connect_timeout_s,
        )
    except ValueError as error:
        raise StartError(f"REDIS_URL cannot be used ({_first_line(error)}).") from error


async def _check_redis(state: Deps, lanes: Lanes) -> None:
    """Warn about a Redis that may lose or refuse rings; runs are safe either way."""
    for warning in await readiness.redis_warnings(lanes, state.settings.ring_budget_s):
        _log.warning("redis_setting", warning=warning)


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
