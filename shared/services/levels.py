"""What a scrape wants to know of everybody's lanes and of this process's connections."""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
from redis import RedisError

from shared import metrics
from shared.deps import Deps
from shared.domain.states import Lane
from shared.store import pauses, sweeping

LOOK_S = 1.0


async def look(deps: Deps, pool: str) -> None:
    """Set the levels; `pool` names this process's connections. What is away has no levels."""
    _connections(deps, pool)
    for level in (metrics.DEPTH, metrics.OLDEST_DUE_S, metrics.PAUSED):
        level.forget()
    await asyncio.gather(
        _answered("redis", lambda: _depths(deps)), _answered("postgresql", lambda: _ages(deps))
    )


async def _answered(dependency: str, ask: Callable[[], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(LOOK_S):
            await ask()
    except (psycopg.Error, RedisError, OSError, TimeoutError):
        metrics.UP.set(0, dependency)
    else:
        metrics.UP.set(1, dependency)


async def _depths(deps: Deps) -> None:
    for lane, waiting in (await deps.lanes.waiting()).items():
        metrics.DEPTH.set(waiting, lane.value)


async def _ages(deps: Deps) -> None:
    ages_s = await sweeping.oldest_due_s(deps.store)
    paused = await pauses.paused(deps.store)
    for lane in Lane:
        metrics.OLDEST_DUE_S.set(ages_s.get(lane, 0), lane.value)
        metrics.PAUSED.set(lane in paused, lane.value)


def _connections(deps: Deps, pool: str) -> None:
    figures = deps.store.pool_figures()
    idle = figures.get("pool_available", 0)
    metrics.POOL_CONNECTIONS.set(idle, pool, "idle")
    metrics.POOL_CONNECTIONS.set(figures.get("pool_size", 0) - idle, pool, "busy")
    metrics.POOL_WAITING.set(figures.get("requests_waiting", 0), pool)
    metrics.POOL_WAITS.add(pool, by=figures.get("requests_queued", 0))
    metrics.POOL_WAIT_S.add(pool, by=figures.get("requests_wait_ms", 0) / 1000)
    metrics.POOL_TIMEOUTS.add(pool, by=figures.get("requests_errors", 0))
