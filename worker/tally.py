"""Adding up: what calls used, for `GET /usage`, and so that their runs may be deleted.

One process at a time does this, in batches with rests between them.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from shared import crashpoints
from shared.deps import Deps
from shared.store import tallying
from worker.leading import Chore

LEADER_LOCK = 0x726C74616C6C79
"""The advisory lock of the one process that adds up: "rltally" in ASCII."""


class Tallier(Chore):
    """Adds up while it is the leader."""

    def __init__(self, deps: Deps) -> None:
        super().__init__(deps, LEADER_LOCK, "tally", deps.settings.tally_s)

    async def work(self) -> None:
        """Add up what began a while ago, and what was left open and is final now."""
        settings, store = self._deps.settings, self._deps.store
        bound = await tallying.bound(store, settings.tally_lag_s)
        for workspace_id in await tallying.behind(store, bound):
            await self._until_done(
                partial(tallying.tally, store, workspace_id, bound, settings.tally_batch)
            )
        await self._until_done(partial(tallying.close, store, settings.tally_batch))

    async def _until_done(self, work: Callable[[], Awaitable[bool]]) -> None:
        async def step() -> bool:
            more = await work()
            crashpoints.reach("tally_mid_batch")
            return more

        await self._batches(step, self._deps.settings.tally_share)
