"""One process at a time: an advisory lock on a connection of its own."""

from typing import Any

from psycopg import AsyncConnection

from shared.deps import Deps
from shared.store import database


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
