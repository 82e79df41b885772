"""Keeping promises over time: what is due is rung, what is over is ended, the dead are reaped.

One process at a time does this: it holds an advisory lock on a connection of its own.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import psycopg
from redis import RedisError

from shared import crashpoints, log, metrics
from shared.deps import Deps
from shared.domain.states import Lane, RunStatus
from shared.ids import RunId
from shared.queue.port import Ring
from shared.services import billing, operations, rings
from shared.store import database, deliveries, sessions, sweeping
from worker.leading import Leadership

BATCH = 500
_DAY_S = 86_400
_FIRST = (0, UUID(int=0))
_log = log.get(__name__)


class Sweeper:
    """Sweeps and reaps while it is the leader."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._leadership = Leadership(deps, sweeping.LEADER_LOCK)
        self._away = log.Spell(_log, "sweep_put_off", "sweep_resumed")
        self._positions: dict[Lane, tuple[int, UUID]] = dict.fromkeys(Lane, _FIRST)
        self._swept_at = float("-inf")
        for lane in Lane:
            metrics.RESCUES.add(lane.value, by=0)

    async def run_forever(self) -> None:
        """Try to lead; while leading, reap and sweep at their intervals."""
        settings = self._deps.settings
        pause_s = min(settings.reap_s, settings.sweep_s)
        while True:
            try:
                leads = await self._leadership.held()
                metrics.LEADS.set(leads)
                if leads:
                    await self._reap()
                    if self._deps.clock.monotonic() - self._swept_at >= settings.sweep_s:
                        self._swept_at = self._deps.clock.monotonic()
                        await self._sweep()
                        metrics.SWEEPS.add()
                self._away.went_well()
            except (psycopg.Error, OSError) as error:
                if isinstance(error, psycopg.Error) and not database.away(error):
                    _log.exception("sweep_failed")
                else:
                    self._away.failed(error)
                await self.close()
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """Give up the lead."""
        metrics.LEADS.set(0)
        await self._leadership.close()

    async def _reap(self) -> None:
        """Take over from dead workers; not before a lease has passed since we could see them."""
        settings = self._deps.settings
        if self._deps.clock.monotonic() - self._leadership.connected_at < settings.lease_s:
            return
        dead = await sessions.mark_dead(self._deps.store, lease_s=settings.lease_s)
        if dead:
            metrics.WORKERS_LOST.add(by=len(dead))
            _log.warning("workers_lost", sessions=[str(session) for session in dead])
        while True:
            reaped = await sessions.reap(self._deps.store, poison_deaths=settings.poison_deaths)
            if reaped:
                crashpoints.reach("reaper_mid_batch")
            _count(reaped)
            back = [Ring(run.run_id, run.lane) for run in reaped if run.status == RunStatus.QUEUED]
            await rings.ring_many(self._deps, back)
            await rings.ring_turns(self._deps, [run.next_turn for run in reaped])
            if len(reaped) < BATCH:
                break
        if dead:
            await sessions.forget(self._deps.store)

    async def _sweep(self) -> None:
        store = self._deps.store
        expired = await self._until_done(lambda: sweeping.expire(store))
        metrics.ENDED.add(RunStatus.EXPIRED.value, "expired", by=expired)
        overdue = await self._until_done(lambda: sweeping.end_overdue(store))
        metrics.ENDED.add(RunStatus.FAILED.value, "deadline_exceeded", by=overdue)
        await self._until_done(lambda: sweeping.start_scheduled(store))
        await self._forget_deliveries()
        await billing.look_after(self._deps)
        try:
            await operations.align(self._deps)
            await self._ring_what_is_missing()
        except (RedisError, OSError) as error:
            _log.warning("rings_put_off", error=type(error).__name__)

    async def _forget_deliveries(self) -> None:
        kept_s = self._deps.settings.delivery_log_days * _DAY_S
        while BATCH == await deliveries.prune(self._deps.store, kept_s=kept_s, limit=BATCH):
            pass

    async def _until_done(
        self, end: Callable[[], Awaitable[tuple[int, list[tuple[RunId, Lane]]]]]
    ) -> int:
        """Repeat a step while it finds whole batches; answers how many runs it moved."""
        moved = 0
        while True:
            ended, turns = await end()
            moved += ended
            if ended:
                crashpoints.reach("sweeper_mid_batch")
            await rings.ring_turns(self._deps, turns)
            if ended < BATCH:
                return moved

    async def _ring_what_is_missing(self) -> None:
        """Walk the due runs a stretch a time; all of them at once after Redis was emptied."""
        emptied = await self._deps.lanes.emptied()
        if emptied:
            metrics.EMPTIED.add()
            _log.info("redis_was_emptied")
            self._positions = dict.fromkeys(Lane, _FIRST)
        for lane in Lane:
            left = self._deps.settings.sweep_limit
            while emptied or left > 0:
                due = await sweeping.due(self._deps.store, lane, self._positions[lane], BATCH)
                await self._ring_missing(due)
                left -= BATCH
                if len(due) < BATCH:
                    self._positions[lane] = _FIRST
                    break
                self._positions[lane] = (due[-1].at_us, due[-1].run_id)

    async def _ring_missing(self, due: Sequence[sweeping.Due]) -> None:
        waiting = [Ring(run.run_id, run.lane, run.due_ms) for run in due if run.turn_has_come]
        missing = await self._deps.lanes.missing(waiting)
        if missing:
            _log.info("rang_again", runs=len(missing))
            await self._deps.lanes.ring_many(missing)
            for lane, count in Counter(ring.lane for ring in missing).items():
                metrics.RESCUES.add(lane.value, by=count)


def _count(reaped: Sequence[sessions.Reaped]) -> None:
    for run in reaped:
        metrics.REAPED.add(run.status)
        if run.status != RunStatus.QUEUED:
            metrics.ENDED.add(run.status, run.error_code or "")
