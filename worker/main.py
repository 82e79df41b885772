"""The worker process: what runs in it, how it starts, and how it leaves."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace

from shared import log, metrics
from shared.clock import DatabaseClock
from shared.deps import Deps
from shared.domain.price_book import PriceBook
from shared.ids import RunId
from shared.queue.lanes import Lanes
from shared.tasks import end
from worker import deliver, execute, handler, http, lanes, prune, session, sweep, tally, watching
from worker.providers import registry

_log = log.get(__name__)


class WorkerProcess:
    """Claims, executes, delivers and sweeps, until it is told to stop.

    `start` raises `psycopg.Error` when the database cannot be reached. `drain` and then `stop`
    leave in good order; `stop` alone interrupts what runs.
    """

    def __init__(self, deps: Deps, queue: Lanes) -> None:
        clock = DatabaseClock(deps.clock)
        self._deps = deps = replace(deps, clock=clock)
        self._session = session.Session(deps, self._cancel, clock.told)
        prices = PriceBook()
        self._providers = registry.build(
            deps.settings,
            deps.clock,
            lambda one: watching.WatchedProvider(one, prices, deps.clock),
        )
        self._client = http.GuardedClient(deps.settings)
        self._deliverer = deliver.Deliverer(deps, self._client)
        self._executor = execute.Executor(
            deps, self._session, self._providers, prices, self._deliverer.send
        )
        self._lanes = lanes.LaneWorker(
            queue,
            watching.WatchedRuns(self._executor),
            deps.settings,
            claim_from_database=self._executor.take_due,
        )
        self._sweeper = sweep.Sweeper(deps)
        self._chores = (prune.Pruner(deps), tally.Tallier(deps))
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Enter the table of sessions and begin."""
        await self._session.open()
        self._providers.preload()
        await self._executor.caps.look()
        self._begin(self._executor.caps.look_forever())
        self._begin(self._lanes.async_run())
        self._begin(self._sweeper.run_forever())
        for chore in self._chores:
            self._begin(chore.run_forever())
        self._begin(self._deliverer.poll_forever(self._session.may_start))
        self._begin(self._executor.import_forever())
        self._begin(self._executor.give_back_forever())

    async def drain(self) -> None:
        """Claim nothing more and wait for what runs, for as long as the settings allow."""
        ended = await self._lanes.drain(self._deps.settings.drain_s)
        if not ended:
            _log.warning("drain_timed_out", running=sum(self._lanes.counts().running.values()))

    async def stop(self) -> None:
        """Interrupt what still runs, deliver what is in hand, and leave."""
        self._executor.leave()
        await self._lanes.close()
        await self._deliverer.drain(self._deps.settings.webhook_timeout_s)
        await end(self._tasks)
        await self._sweeper.close()
        for chore in self._chores:
            await chore.close()
        await self._session.close()
        await self._providers.aclose()
        await self._client.aclose()

    def failed(self) -> BaseException | None:
        """Why one of the endless tasks ended, if one did: the process should then end too."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                return task.exception() or RuntimeError("a part of the worker ended by itself")
        return None

    def counts(self) -> handler.Counts:
        return self._lanes.counts()

    async def look(self) -> None:
        """Set the levels of this worker, for a scrape."""
        counts = self.counts()
        for lane, held in counts.running.items():
            metrics.RUNNING.set(held, lane.value)
        metrics.FREE.set(counts.free)
        metrics.REDIS_AWAY.set(counts.redis_away)
        metrics.LEASE_AGE_S.set(self._session.renewed_ago_s())
        metrics.HELD_BYTES.set(self._executor.held_bytes)
        metrics.SENDING.set(self._deliverer.under_way())
        metrics.BREAKERS_OPEN.forget()
        for provider, count in self._executor.breakers.open_now().items():
            metrics.BREAKERS_OPEN.set(count, provider)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _cancel(self, run_id: RunId) -> None:
        self._lanes.cancel(run_id)
