"""Letting go: contents, runs and idempotency keys that have been kept for long enough.

One process at a time does this, in small batches with rests between them, so that nobody who
claims or ends runs waits for it.
"""

from collections.abc import Awaitable, Callable

from shared import crashpoints, log
from shared.deps import Deps
from shared.store import pruning, sessions
from shared.store.pruning import Kept
from worker.leading import Chore

LEADER_LOCK = 0x726C7072756E65
"""The advisory lock of the one process that prunes: "rlprune" in ASCII."""

_log = log.get(__name__)


class Pruner(Chore):
    """Prunes while it is the leader."""

    def __init__(self, deps: Deps) -> None:
        settings = deps.settings
        super().__init__(deps, LEADER_LOCK, "pruning", settings.prune_s)
        self._kept = Kept(settings.retain_contents_days, settings.retain_runs_days)

    async def work(self) -> None:
        """Let go of what is due."""
        store, batch = self._deps.store, self._deps.settings.prune_batch
        deleted = await self._until_done(lambda: pruning.delete(store, self._kept, batch))
        erased = await self._until_done(lambda: pruning.erase(store, self._kept, batch))
        keys = await self._until_done(lambda: pruning.forget_keys(store, batch))
        await sessions.forget(store)
        if erased or deleted:
            _log.info("pruned", erased=erased, deleted=deleted, keys=keys)

    async def _until_done(self, work: Callable[[], Awaitable[int]]) -> int:
        settings, total = self._deps.settings, 0

        async def step() -> bool:
            nonlocal total
            done = await work()
            total += done
            if done:
                crashpoints.reach("pruner_mid_batch")
            return done >= settings.prune_batch

        await self._batches(step, settings.prune_share)
        return total
