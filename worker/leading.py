"""One process at a time: an advisory lock on a connection of its own."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import AsyncConnection

from shared import log
from shared.deps import Deps
from shared.store import database

_log = log.get(__name__)


class Leadership:
    """A job that only the process with the lock does; may raise `psycopg.Error`."""

    def __init__(self, deps: Deps, lock: int) -> None:
        self._deps = deps
        self._lock = lock
        self._connection: AsyncConnection[Any] | None = None
        self._leads = False
        self.connected_at = 0.0
        """The monotonic second at which the database was last reached anew."""

    async def held(self) -> bool:
        """Hold the lock, or try to get it; proves at each call that the connection lives."""
        lease_s = self._deps.settings.lease_s
        if self._connection is None:
            self._connection = await self._deps.store.connect_alone()
            self.connected_at = self._deps.clock.monotonic()
            # A frozen leader has to lose its lock as a dead one does: who else would reap it?
            await self._connection.execute(
                "SELECT set_config('idle_session_timeout', %s, false)",
                (str(round(lease_s * 1000)),),
            )
        with database.answered_within(lease_s, self._connection):
            if self._leads:
                await self._connection.execute("SELECT 1")
            else:
                cursor = await self._connection.execute(
                    "SELECT pg_try_advisory_lock(%s)", (self._lock,)
                )
                row = await cursor.fetchone()
                self._leads = bool(row and row[0])
        return self._leads

    async def close(self) -> None:
        """Give up the lead."""
        self._leads = False
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


class Chore(ABC):
    """Work that is there again and again, for the leader, in batches with rests between them."""

    def __init__(self, deps: Deps, lock: int, name: str, pause_s: float) -> None:
        self._deps = deps
        self._leadership = Leadership(deps, lock)
        self._name = name
        self._pause_s = pause_s
        self._away = log.Spell(_log, f"{name}_put_off", f"{name}_resumed")

    @abstractmethod
    async def work(self) -> None:
        """Do what there is to do now."""

    async def run_forever(self) -> None:
        """Try to lead; while leading, do what there is, then look again after a while."""
        while True:
            try:
                if await self._leadership.held():
                    await self.work()
                self._away.went_well()
            except (psycopg.Error, OSError) as error:
                if isinstance(error, psycopg.Error) and not database.away(error):
                    _log.exception(f"{self._name}_failed")
                else:
                    self._away.failed(error)
                await self.close()
            if self._pause_s * 2 > self._deps.settings.lease_s:
                await self.close()  # the lock's connection may not be idle for longer than a lease
            await asyncio.sleep(self._pause_s)

    async def close(self) -> None:
        """Give up the lead."""
        await self._leadership.close()

    async def _batches(self, step: Callable[[], Awaitable[bool]], share: float) -> None:
        """Batch after batch, with rests, while a step says that more is left and the lead is ours.

        They keep the database busy for that share of the time.
        """
        while True:
            began = self._deps.clock.monotonic()
            if not await step() or not await self._leadership.held():
                return
            took_s = self._deps.clock.monotonic() - began
            await asyncio.sleep(took_s / share - took_s)
