"""What every process of ours needs at its start: settings turned into connections, and signals."""

import asyncio
import gc
import importlib
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import SystemRandom

import psycopg
import tenacity

from cli import database
from shared import crashpoints, deps, log
from shared.clock import SystemClock
from shared.deps import Deps
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.services import self_check
from shared.services.findings import Verdict
from shared.settings import Settings
from shared.store import schema
from shared.store.database import Store, lost

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    new_event_loop = importlib.import_module("uvloop").new_event_loop
except ImportError:  # no wheel for Windows
    new_event_loop = asyncio.new_event_loop

COLLECT = (20_000, 20, 50)
CONNECT_S = 10.0
STARTING_S = 3.0
_log = log.get(__name__)


def collect_rarely() -> None:
    """Let the garbage collector look at less, and less often.

    What was made at start stays, and what is in flight is alive however often it is looked at:
    Python's own thresholds, made for small programs, cost a worker a seventh of its time.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT)


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
        if not schema.serves(found):
            raise StartError(
                f"The database has schema {found}, this version needs {schema.EXPECTED}: "
                "run `runlane migrate`."
            )
        if found != schema.EXPECTED:
            _log.warning("schema_is_newer", found=found, expected=schema.EXPECTED)
        clock = SystemClock(settings.clock_skew_s)
        yield deps.build(settings, clock, SystemRandom(), store, lanes), lanes
    finally:
        await store.close()
        await lanes.aclose()


async def check(state: Deps, lanes: Lanes) -> None:
    """Look at what this process relies on: warn aloud, or refuse. Raises `StartError`."""
    for finding in await self_check.examine(state, lanes):
        if finding.verdict is Verdict.BAD:
            raise StartError(f"Not started ({finding.check}): {finding.detail.rstrip('.')}.")
        if finding.verdict is Verdict.WARNING:
            _log.warning("unsafe_start", check=finding.check, warning=finding.detail)


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


@tenacity.retry(
    retry=tenacity.retry_if_exception(lost),
    stop=tenacity.stop_after_delay(STARTING_S),
    wait=tenacity.wait_fixed(0.25),
    reraise=True,
)
async def _probe(url: str) -> None:
    """Try one connection by itself: its error says more than a pool's time-out.

    A server that starts beside us gets a few seconds; a wrong password does not.
    """
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
