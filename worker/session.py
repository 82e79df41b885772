"""This process's place among the workers: its lease, renewed on a connection of its own."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection

from shared import log, metrics
from shared.deps import Deps
from shared.ids import RunId, SessionId, new_id
from shared.store import sessions
from shared.store.database import answered_within
from shared.tasks import end

_log = log.get(__name__)


class Session:
    """A row in `worker_sessions`, kept alive; its id changes when others declared it dead.

    `cancel` is called with runs whose cancellation was asked for, in case the news missed us;
    `told` with the database's time, whenever the lease was prolonged.
    """

    def __init__(
        self,
        deps: Deps,
        cancel: Callable[[RunId], object],
        told: Callable[[datetime], object] = lambda _: None,
    ) -> None:
        self._deps = deps
        self._cancel = cancel
        self._told = told
        self._connection: AsyncConnection[Any] | None = None
        self._renewed_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._unrenewed = log.Spell(_log, "renewal_failed", "renewal_resumed")
        self.id = SessionId(new_id())

    async def open(self) -> None:
        """Enter the table. Raises `psycopg.Error` when the database cannot be reached."""
        self._connection = await self._deps.store.connect_alone()
        await self._enter()
        self._task = asyncio.create_task(self._renew_forever())

    async def close(self) -> None:
        """Leave the table, unless runs are left for the reaper."""
        if self._task is not None:
            await end([self._task])
        with suppress(psycopg.Error):
            await sessions.close_session(self._deps.store, self.id)
        if self._connection is not None:
            await self._connection.close()

    def may_start(self) -> bool:
        """Whether the last renewal is recent enough to start something new (self-fence)."""
        return self.renewed_ago_s() < self._deps.settings.self_fence_s

    def renewed_ago_s(self) -> float:
        """How long ago the last renewal that worked was sent."""
        return self._deps.clock.monotonic() - self._renewed_at

    async def _enter(self) -> None:
        sent_at = self._deps.clock.monotonic()
        at = await sessions.open_session(
            self._deps.store,
            self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            lease_s=self._deps.settings.lease_s,
        )
        self._renewed_at = sent_at
        self._told(at)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._deps.settings.renew_s)
            try:
                await self._renew()
                self._unrenewed.went_well()
            except (psycopg.Error, OSError) as error:
                metrics.RENEWAL_FAILURES.add()
                self._unrenewed.failed(error)
                if self._connection is not None:
                    await self._connection.close()
                    self._connection = None

    async def _renew(self) -> None:
        settings = self._deps.settings
        through = self._connection = self._connection or await self._connected()
        # The lease counts from before the statement left: a slow answer must not prolong it.
        sent_at = self._deps.clock.monotonic()
        # Soon enough for another try, on a new connection, before the self-fence.
        with _answered_within(settings.self_fence_s / 2, through):
            at = await sessions.renew(
                through or self._deps.store, self.id, lease_s=settings.lease_s
            )
        if at is None:
            metrics.LEASES_LOST.add()
            _log.error("session_was_reaped", session=str(self.id))
            self.id = SessionId(new_id())
            await self._enter()
            return
        self._renewed_at = sent_at
        self._told(at)
        # Somebody who locks the table of runs hinders this, and no heart for it.
        with (
            suppress(psycopg.errors.LockNotAvailable),
            _answered_within(settings.self_fence_s, through),
        ):
            for run_id in await sessions.canceled(through or self._deps.store, self.id):
                self._cancel(run_id)

    async def _connected(self) -> AsyncConnection[Any] | None:
        """A connection for renewals alone; `None` where the server has none left: use the pool."""
        try:
            return await self._deps.store.connect_alone()
        except psycopg.OperationalError:
            return None


def _answered_within(
    seconds: float, connection: AsyncConnection[Any] | None
) -> AbstractContextManager[object]:
    return nullcontext() if connection is None else answered_within(seconds, connection)
