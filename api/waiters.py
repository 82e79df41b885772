"""Requests that wait for a run to end: told by Redis, checked with the database now and then."""

import asyncio
from collections.abc import Sequence
from typing import Self

import psycopg
from redis import RedisError

from shared import log, metrics
from shared.deps import Deps
from shared.ids import RunId
from shared.store import reading
from shared.tasks import end

CHECK_S = 2.0
AGAIN_S = 1.0

_log = log.get(__name__)


class Waiters:
    """One subscriber and one look-up for all who wait in this process; none holds a connection.

    `close` sends everybody on at once: their requests answer with the run as it is.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._waiting: dict[RunId, list[asyncio.Event]] = {}
        self._count = 0
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def count(self) -> int:
        """How many places are taken."""
        return self._count

    def reserve(self) -> "Waiter | None":
        """Take a place before there is a run to wait for; `None` when there is none left."""
        if self._closed or self._count >= self._deps.settings.waiters:
            return None
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._listen_forever()),
                asyncio.create_task(self._check_forever()),
            ]
        self._count += 1
        return Waiter(self)

    def enter(self, run_id: RunId) -> "Waiter | None":
        """Begin to listen for a run; read it after this, then wait. `None`: there is no room."""
        waiter = self.reserve()
        if waiter is not None:
            waiter.listen(run_id)
        return waiter

    def add(self, run_id: RunId, event: asyncio.Event) -> None:
        """Set the event once the run is over, or at once when nobody listens for that any more."""
        self._waiting.setdefault(run_id, []).append(event)
        if self._closed:
            event.set()  # it had its place before, and nobody would send it on any more

    def drop(self, run_id: RunId, event: asyncio.Event) -> None:
        """Think of the event no more."""
        events = self._waiting[run_id]
        events.remove(event)
        if not events:
            del self._waiting[run_id]

    async def look(self) -> None:
        """Set the level of who waits, for a scrape."""
        metrics.WAITERS.set(self._count)

    def leave(self) -> None:
        """Give a place back."""
        self._count -= 1

    async def close(self) -> None:
        """Let nobody in any more and send on whoever waits."""
        self._closed = True
        self._wake(list(self._waiting))
        await end(self._tasks)

    def _wake(self, run_ids: Sequence[RunId]) -> None:
        for run_id in run_ids:
            for event in self._waiting.get(run_id, ()):
                event.set()

    async def _listen_forever(self) -> None:
        while True:
            try:
                async for run_ids in self._deps.lanes.announced():
                    if run_ids:
                        self._wake(run_ids)
                    else:  # from now on we hear of ends; what came before nobody told us
                        await self._check()
            except (RedisError, OSError) as error:
                _log.warning("announcements_unheard", error=type(error).__name__)
            await asyncio.sleep(AGAIN_S)

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await self._check()

    async def _check(self) -> None:
        if self._waiting:
            try:
                self._wake(await reading.over(self._deps.store, self._waiting))
            except psycopg.Error as error:
                _log.warning("waiters_unchecked", error=type(error).__name__)


class Waiter:
    """One request's place among the waiters; leaving the `with` gives it back."""

    def __init__(self, waiters: Waiters) -> None:
        self._waiters = waiters
        self._run_id: RunId | None = None
        self._event = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._deafen()
        self._waiters.leave()

    @property
    def listens_for(self) -> RunId | None:
        return self._run_id

    def listen(self, run_id: RunId) -> None:
        """Begin to listen for a run, and for no other any more."""
        self._deafen()
        self._run_id = run_id
        self._waiters.add(run_id, self._event)

    def wake(self) -> None:
        """End the wait, whatever the run does."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Wait until the run is over, or the time is."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return

    def _deafen(self) -> None:
        if self._run_id is not None:
            self._waiters.drop(self._run_id, self._event)
            self._run_id = None
