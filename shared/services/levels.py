"""What a scrape wants to know of everybody's lanes and of this process's connections."""

import asyncio
from collections.abc import Callable, Coroutine

import psycopg
from redis import RedisError

from shared import metrics
from shared.deps import Deps
from shared.domain.states import Lane
from shared.store import pauses, sweeping

LOOK_S = 1.0


class Levels:
    """Sets the levels of lanes and connections, one look at a time.

    A question that is not answered in time is left to end by itself, as canceling it on a dead link
    takes long; while it is open no other is asked, so that scrapes do not use up the connections.
    """

    def __init__(self, deps: Deps, pool: str, *, wait_s: float = LOOK_S) -> None:
        """`pool` names this process's connections."""
        self._deps = deps
        self._pool = pool
        self._wait_s = wait_s
        self._asked: dict[str, asyncio.Task[None]] = {}

    async def look(self) -> None:
        """Set the levels; of what is away there are none."""
        self._connections()
        for level in (metrics.DEPTH, metrics.OLDEST_DUE_S, metrics.PAUSED):
            level.forget()
        await asyncio.gather(
            self._answered("redis", self._depths), self._answered("postgresql", self._ages)
        )

    async def _answered(
        self, dependency: str, ask: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        asked = self._asked.get(dependency)
        if asked is None or asked.done():
            asked = self._asked[dependency] = asyncio.create_task(ask())
            asked.add_done_callback(_retrieve)
        await asyncio.wait({asked}, timeout=self._wait_s)
        error = asked.exception() if asked.done() else TimeoutError()
        if error and not isinstance(error, psycopg.Error | RedisError | OSError):
            raise error
        metrics.UP.set(error is None, dependency)

    async def _depths(self) -> None:
        for lane, waiting in (await self._deps.lanes.waiting()).items():
            metrics.DEPTH.set(waiting, lane.value)

    async def _ages(self) -> None:
        ages_s = await sweeping.oldest_due_s(self._deps.store)
        paused = await pauses.paused(self._deps.store)
        for lane in Lane:
            metrics.OLDEST_DUE_S.set(ages_s.get(lane, 0), lane.value)
            metrics.PAUSED.set(lane in paused, lane.value)

    def _connections(self) -> None:
        figures, pool = self._deps.store.pool_figures(), self._pool
        idle = figures.get("pool_available", 0)
        metrics.POOL_CONNECTIONS.set(idle, pool, "idle")
        metrics.POOL_CONNECTIONS.set(figures.get("pool_size", 0) - idle, pool, "busy")
        metrics.POOL_WAITING.set(figures.get("requests_waiting", 0), pool)
        metrics.POOL_WAITS.add(pool, by=figures.get("requests_queued", 0))
        metrics.POOL_WAIT_S.add(pool, by=figures.get("requests_wait_ms", 0) / 1000)
        metrics.POOL_TIMEOUTS.add(pool, by=figures.get("requests_errors", 0))


def _retrieve(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()
