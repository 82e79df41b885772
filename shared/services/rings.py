"""Telling workers about runs: after the commit, within a budget, and never as a failure."""

import asyncio
from collections.abc import Iterable, Sequence

from redis import RedisError

from shared import log, metrics
from shared.deps import Deps
from shared.domain.states import Lane
from shared.ids import RunId
from shared.queue.port import Ring

_log = log.get(__name__)


async def ring(deps: Deps, ring: Ring) -> None:
    """Ring one run; where Redis does not answer in time, the sweeper finds the run later."""
    try:
        async with asyncio.timeout(deps.settings.ring_budget_s):
            await deps.rings.submit(ring)
    except (RedisError, OSError, TimeoutError) as error:
        metrics.RING_FAILURES.add()
        _log.warning("ring_failed", run_id=str(ring.run_id), error=type(error).__name__)


async def ring_many(deps: Deps, rings: Sequence[Ring]) -> None:
    """Ring a batch of runs, under the same rule."""
    try:
        async with asyncio.timeout(deps.settings.ring_budget_s):
            await deps.lanes.ring_many(rings)
    except (RedisError, OSError, TimeoutError) as error:
        metrics.RING_FAILURES.add(by=len(rings))
        _log.warning("ring_failed", runs=len(rings), error=type(error).__name__)


async def ring_turns(deps: Deps, turns: Iterable[tuple[RunId, Lane] | None]) -> None:
    """Ring the runs whose turn in their thread has come, all of them within one budget."""
    due = [Ring(*turn) for turn in turns if turn is not None]
    if len(due) == 1:
        await ring(deps, due[0])
    elif due:
        await ring_many(deps, due)


def announce(deps: Deps, run_id: RunId) -> None:
    """Tell whoever waits that a run is over, in the background: they also look by themselves."""
    _ = deps.announcements.enqueue(run_id)
