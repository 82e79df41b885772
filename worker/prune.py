"""Letting go: contents, runs and idempotency keys that have been kept for long enough.

One process at a time does this, in small batches with rests between them, so that nobody who
claims or ends runs waits for it.
"""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg

from shared import crashpoints, log
from shared.deps import Deps
from shared.store import database, pruning, sessions
from shared.store.pruning import Kept
from worker.leading import Leadership

LEADER_LOCK = 0x726C7072756E65
"""The advisory lock of the one process that prunes: "rlprune" in ASCII."""

_log = log.get(__name__)


class Pruner:
    """Prunes while it is the leader."""

    def __init__(self, deps: Deps) -> None:
        settings = deps.settings
        self._deps = deps
        self._leadership = Leadership(deps, LEADER_LOCK)
        self._kept = Kept(settings.retain_contents_days, settings.retain_runs_days)
        self._away = log.Spell(_log, "pruning_put_off", "pruning_resumed")

    async def run_forever(self) -> None:
        """Try to lead; while leading, let go of what is due, then look again after a while."""
        settings = self._deps.settings
        while True:
            try:
                if await self._leadership.held():
                    await self._prune()
                self._away.went_well()
            except (psycopg.Error, OSError) as error:
                if isinstance(error, psycopg.Error) and not database.away(error):
                    _log.exception("pruning_failed")
                else:
                    self._away.failed(error)
                await self.close()
            if settings.prune_s * 2 > settings.lease_s:
                await self.close()  # the lock's connection may not be idle for longer than a lease
            await asyncio.sleep(settings.prune_s)

    async def close(self) -> None:
        """Give up the lead."""
        await self._leadership.close()

    async def _prune(self) -> None:
        store, batch = self._deps.store, self._deps.settings.prune_batch
        deleted = await self._until_done(lambda: pruning.delete(store, self._kept, batch))
        erased = await self._until_done(lambda: pruning.erase(store, self._kept, batch))
        keys = await self._until_done(lambda: pruning.forget_keys(store, batch))
        await sessions.forget(store)
        if erased or deleted:
            _log.info("pruned", erased=erased, deleted=deleted, keys=keys)

    async def _until_done(self, work: Callable[[], Awaitable[int]]) -> int:
        """Batch after batch while one is full and the lead is ours; rests in between."""
        settings, total = self._deps.settings, 0
        while True:
            began = self._deps.clock.monotonic()
            done = await work()
            total += done
            if done:
                crashpoints.reach("pruner_mid_batch")
            if done < settings.prune_batch or not await self._leadership.held():
                return total
            took_s = self._deps.clock.monotonic() - began
            await asyncio.sleep(took_s / settings.prune_share - took_s)
