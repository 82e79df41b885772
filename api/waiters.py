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

    def enter(self, run_id: RunId) -> "Waiter | None":
        """Begin to listen for a run; read it after this, then wait. `None` when there is no room.

        Leave again with `leave`, whatever happens.
        """
        if self._closed or self._count >= self._deps.settings.waiters:
            return None
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._listen_forever()),
                asyncio.create_task(self._check_forever()),
            ]
        event = asyncio.Event()
        self._waiting.setdefault(run_id, []).append(event)
        self._count += 1
        return Waiter(self, run_id, event)

    def leave(self, run_id: RunId, event: asyncio.Event) -> None:
        events = self._waiting[run_id]
        events.remove(event)
        self._count -= 1
        if not events:
            del self._waiting[run_id]

    async def look(self) -> None:
        """Set the level of who waits, for a scrape."""
        metrics.WAITERS.set(self._count)

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
                    self._wake(run_ids)
            except (RedisError, OSError) as error:
                _log.warning("announcements_unheard", error=type(error).__name__)
            await asyncio.sleep(AGAIN_S)

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            if self._waiting:
                try:
                    self._wake(await reading.over(self._deps.store, self._waiting))
                except psycopg.Error as error:
                    _log.warning("waiters_unchecked", error=type(error).__name__)


class Waiter:
    """One request's place among the waiters."""

    def __init__(self, waiters: Waiters, run_id: RunId, event: asyncio.Event) -> None:
        self._waiters = waiters
        self._run_id = run_id
        self._event = event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiters.leave(self._run_id, self._event)

    async def wait(self, seconds: float) -> None:
        """Wait until the run is over, or the time is."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
