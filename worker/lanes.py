"""The worker's claim loop over the lanes: room, batches, doorbell, Redis away (DESIGN §6)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Generic

from arq.constants import in_progress_key_prefix, job_key_prefix
from arq.cron import CronJob
from arq.utils import timestamp_ms
from arq.worker import Function, Worker
from redis.exceptions import RedisError

from shared import log
from shared.domain.states import Lane
from shared.ids import RunId
from shared.queue.lanes import QUEUES, Claim, ForeignJob, Lanes, deserialize, serialize
from shared.queue.port import Ring
from shared.queue.slots import LANES, Slots, deal
from shared.settings import Settings
from worker.handler import RUN_JOB, Claimed, ClaimFromDatabase, Counts, Handler, NotNowError
from worker.running import Running

TAKES_IN_FLIGHT = 2
HEALTH_S = 30
PROBE_S = 0.5
DATABASE_CLAIMS = 8
BACKOFF_S = 0.1
BACKOFF_MAX_S = 1.0
ABORT_S = 5.0
CANCEL_S = 0.1
CANCELS = 10
"""How often a helper is cancelled: before Python 3.12 `wait_for`, in redis-py, may swallow one."""

_log = log.get(__name__)


class LaneWorker(Worker, Generic[Claimed]):
    """ARQ's worker with a claim of its own; ARQ's functions, cron and health check still work.

    `async_run()` claims until `stop_claiming()`; then `drain()`, `abort_all()` and `close()`.
    A slot is held from the claim in Redis until the run's task has ended.
    """

    def __init__(
        self,
        lanes: Lanes,
        handler: Handler[Claimed],
        settings: Settings,
        *,
        claim_from_database: ClaimFromDatabase[Claimed] | None = None,
        functions: Sequence[Function] = (),
        cron_jobs: Sequence[CronJob] = (),
    ) -> None:
        super().__init__(
            [RUN_JOB, *functions],
            queue_name=QUEUES[Lane.NORMAL],
            cron_jobs=cron_jobs,
            redis_pool=lanes,
            handle_signals=False,
            max_jobs=settings.slots,
            poll_delay=settings.poll_s,
            health_check_interval=HEALTH_S,
            job_serializer=serialize,
            job_deserializer=deserialize,
        )
        self._lanes = lanes
        self._handler = handler
        self._database = claim_from_database
        self._settings = settings
        self._slots = Slots(settings.slots, settings.lane_floors, settings.lane_weights)
        self._running = Running(self._slots, self._look_again)
        self._takes: set[asyncio.Task[None]] = set()
        self._left = dict.fromkeys(LANES, True)
        self._stopping = False
        self._hungry = False
        self._hold_until = 0.0
        self._take_failures = 0
        self._redis_failures = 0
        self._away_since: float | None = None
        self._wake = asyncio.Event()
        self._gathering = False
        self._bells = {lane: asyncio.Event() for lane in LANES}
        self._helpers: list[asyncio.Task[None]] = []

    # What the process around it asks

    def counts(self) -> Counts:
        return Counts(dict(self._slots.running), self._slots.free, self._away_since is not None)

    def cancel(self, run_id: RunId) -> bool:
        """Cancel the task of this run, with `Stop.USER`; answers whether it is running here."""
        return self._running.cancel(run_id)

    def stop_claiming(self) -> None:
        """Start nothing new; what runs is left alone."""
        self._stopping = True
        self._wake.set()

    async def drain(self, timeout_s: float) -> bool:
        """Stop claiming and wait for what runs; answers whether everything ended in time."""
        self.stop_claiming()
        deadline = self.loop.time() + timeout_s
        while pending := self._under_way():
            left_s = deadline - self.loop.time()
            if left_s <= 0:
                return False
            await asyncio.wait(pending, timeout=left_s)
        return True

    async def abort_all(self, timeout_s: float = ABORT_S) -> bool:
        """Cancel everything, with `Stop.SHUTDOWN`, and wait for it to end."""
        self.stop_claiming()
        for take in self._takes:
            take.cancel()
        self._running.stop_all()
        return await self.drain(timeout_s)

    async def close(self) -> None:
        """End what is left. The lanes' connections belong to whoever made them."""
        await self.abort_all()
        ending = {*self._helpers, *([self.main_task] if self.main_task else [])}
        for _ in range(CANCELS):
            for task in ending:
                task.cancel()
            if ending:
                _, ending = await asyncio.wait(ending, timeout=CANCEL_S)
        with suppress(RedisError):
            await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)

    # The loop

    async def main(self) -> None:
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        steps: list[Callable[[], Awaitable[None]]] = [self._beat, self._obey_cancels]
        steps += [partial(self._sit_at_bell, lane) for lane in LANES]
        self._helpers = [asyncio.create_task(self._for_ever(step)) for step in steps]
        while not self._stopping:
            self._wake.clear()
            self._hungry = False
            await self._idle(await self._round())

    async def _round(self) -> float:
        """Claim what there is room for; answer the seconds until the next reason to claim."""
        now = self.loop.time()
        if self._slots.free <= 0 or len(self._takes) >= TAKES_IN_FLIGHT:
            self._left = dict.fromkeys(LANES, True)  # nobody looked: assume so
            return self._settings.poll_s
        if now < self._hold_until:
            return self._hold_until - now
        if not self._may_start():
            return self._settings.poll_s
        claim = await self._claim(now)
        if claim is None:
            return await self._without_redis(now)
        if self._stopping:
            await self._put_back(claim.runs, claim.foreign)
            return 0
        return self._accept(claim)

    async def _claim(self, began: float) -> Claim | None:
        try:
            if self._away_since is not None:
                async with asyncio.timeout(PROBE_S):
                    await self.pool.ping()
            claim = await self._lanes.claim(self._slots.room(), self._settings.claim_limit)
        except (RedisError, TimeoutError) as error:
            if self._away_since is None:
                self._away_since = began
                _log.warning("redis_away", error=str(error) or type(error).__name__)
            self._redis_failures += 1
            return None
        if self._away_since is not None:
            _log.warning("redis_back", away_s=round(self.loop.time() - self._away_since, 1))
            self._away_since = None
            self._redis_failures = 0
        return claim

    def _accept(self, claim: Claim) -> float:
        batch: dict[RunId, Lane] = {}
        for run_id, lane in claim.runs:
            if run_id not in batch:
                batch[run_id] = lane
                self._slots.take(lane)
        if batch:
            task = asyncio.create_task(self._take(batch))
            self._takes.add(task)
            task.add_done_callback(self._take_ended)
        self._accept_others(claim)
        self._hungry = True
        admitted = [lane for lane in LANES if self._slots.admits(lane)]
        # by the time a lane without room has some, its next ids may be due
        self._left = {lane: claim.left[lane] or lane not in admitted for lane in LANES}
        if any(self._left[lane] for lane in admitted):
            return 0
        due_s = [claim.next_due_s[lane] for lane in admitted if lane in claim.next_due_s]
        return min([self._settings.poll_s, *due_s])

    def _accept_others(self, claim: Claim) -> None:
        dropped = [repr(job_id) for job_id in claim.garbage]
        for job in claim.foreign:
            if job.function in self.functions:
                self._slots.take(job.lane)
                self._running.start(job.lane, None, partial(self._run_for_arq, job))
            else:
                dropped.append(repr(job.job_id))
        if dropped:
            _log.warning("garbage_dropped", count=len(dropped), first_id=dropped[0][:80])

    async def _idle(self, wait_s: float) -> None:
        """Wait for a bell, for room where something is left, or for the time to be up."""
        if wait_s <= 0 or self._wake.is_set():
            return
        timer = self.loop.call_later(wait_s, self._wake.set)
        self._listen()
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
            for bell in self._bells.values():
                bell.clear()

    def _look_again(self, *, gathered: bool = False) -> None:
        fits = [lane for lane, left in self._left.items() if left and self._slots.admits(lane)]
        if not fits:
            if self._hungry:
                self._listen()
        elif len(self._takes) < TAKES_IN_FLIGHT:
            if gathered or any(map(self._slots.presses, fits)):
                self._wake.set()
            elif not self._gathering:
                self._gathering = True
                self.loop.call_later(self._settings.gather_s, self._gathered)

    def _gathered(self) -> None:
        self._gathering = False
        self._look_again(gathered=True)

    def _may_start(self) -> bool:
        try:
            return self._handler.may_start()
        except Exception:  # noqa: BLE001 (a hook never ends the process)
            _log.exception("may_start_failed")
            return False

    # Batches and runs

    async def _take(self, batch: Mapping[RunId, Lane]) -> None:
        taken: Mapping[RunId, Claimed | None] = {}
        try:
            taken = await self._handler.take(tuple(batch))
            self._take_failures = 0
        except Exception as error:  # noqa: BLE001 (a hook never ends the process)
            if not isinstance(error, NotNowError):
                _log.exception("take_failed", runs=len(batch))
            self._take_failures += 1
            self._hold_until = self.loop.time() + _backoff_s(self._take_failures)
            await self._put_back(tuple(batch.items()))
        finally:
            for run_id, lane in batch.items():
                claimed = taken.get(run_id)
                if claimed is None:
                    self._running.release(lane)
                else:
                    self._running.start(lane, run_id, partial(self._run, claimed))

    def _take_ended(self, task: "asyncio.Task[None]") -> None:
        self._takes.discard(task)
        self._look_again()

    async def _run(self, claimed: Claimed) -> None:
        try:
            await self._handler.run(claimed)
        except asyncio.CancelledError:
            self.jobs_retried += 1
            raise
        except Exception:
            self.jobs_failed += 1
            raise
        self.jobs_complete += 1

    async def _put_back(
        self, runs: Sequence[tuple[RunId, Lane]], foreign: Sequence[ForeignJob] = ()
    ) -> None:
        with suppress(RedisError):  # then the sweeper rings the runs
            await self._lanes.ring_many([Ring(run_id, lane) for run_id, lane in runs])
            for job in foreign:
                await self._restore(job)

    def _under_way(self) -> set["asyncio.Task[None]"]:
        tasks = self._running.tasks() | self._takes
        if self.main_task is not None and not self.main_task.done():
            tasks.add(self.main_task)
        return tasks

    # Jobs of ARQ's own: cron, other registered functions

    async def _run_for_arq(self, job: ForeignJob) -> None:
        """Give the job back to Redis as in progress, then run it as ARQ does."""
        in_progress_ms = int(self.in_progress_timeout_s * 1000)
        await self.pool.psetex(in_progress_key_prefix + job.job_id, in_progress_ms, b"1")
        await self._restore(job)
        await self.run_job(job.job_id, timestamp_ms())

    async def _restore(self, job: ForeignJob) -> None:
        async with self.pool.pipeline(transaction=True) as pipe:
            pipe.psetex(job_key_prefix + job.job_id, self.expires_extra_ms, job.blob)
            pipe.zadd(self.queue_name, {job.job_id: timestamp_ms()})
            await pipe.execute()

    async def record_health(self) -> None:
        self.tasks = {str(n): task for n, task in enumerate(self._running.tasks())}
        await super().record_health()

    # When Redis is away

    async def _without_redis(self, began: float) -> float:
        """Back off; when it has lasted, claim from the database at every poll."""
        away_since = began if self._away_since is None else self._away_since
        until_away_s = away_since + self._settings.redis_away_s - self.loop.time()
        wait_s = min(_backoff_s(self._redis_failures), until_away_s)
        if until_away_s <= 0 and not self._stopping:
            await self._claim_from_database()
            wait_s = began + self._settings.poll_s - self.loop.time()
        wait_s = max(wait_s, BACKOFF_S)
        self._hold_until = self.loop.time() + wait_s
        return wait_s

    async def _claim_from_database(self) -> None:
        if self._database is None:
            return
        waiting, limit = dict.fromkeys(LANES, True), self._settings.claim_limit
        for _ in range(DATABASE_CLAIMS):
            due = [limit if waiting[lane] else 0 for lane in LANES]
            room = dict(zip(LANES, deal(self._slots.room(), due, limit), strict=True))
            if not any(room.values()):
                return
            try:
                taken = await self._database(room)
            except Exception:  # noqa: BLE001 (a hook never ends the process)
                _log.exception("claim_from_database_failed")
                return
            for one in taken:
                self._slots.take(one.lane)
                self._running.start(one.lane, one.run_id, partial(self._run, one.claimed))
            found = Counter(one.lane for one in taken)
            waiting = {lane: waiting[lane] and found[lane] >= room[lane] for lane in LANES}

    # Helpers that live as long as the worker

    def _listen(self) -> None:
        for lane, bell in self._bells.items():
            if self._hungry and self._slots.admits(lane):
                bell.set()

    async def _for_ever(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except RedisError:  # the loop reports it
                await asyncio.sleep(BACKOFF_MAX_S)
            except Exception:  # noqa: BLE001 (a worker without its helpers would limp for ever)
                _log.exception("helper_failed")
                await asyncio.sleep(BACKOFF_MAX_S)

    async def _sit_at_bell(self, lane: Lane) -> None:
        """Wait for a ring in one lane while the loop is idle and the lane has room."""
        bell = self._bells[lane]
        await bell.wait()
        if not await self._lanes.answer_bell(lane):
            return
        bell.clear()
        if self._slots.admits(lane) and not self._stopping and self._may_start():
            self._left[lane] = True
            self._wake.set()
        else:
            await self._lanes.pass_on(lane)

    async def _obey_cancels(self) -> None:
        async for run_id in self._lanes.cancels():
            self.cancel(run_id)

    async def _beat(self) -> None:
        """Keep ARQ's health check and cron jobs going."""
        await self.heart_beat()
        await asyncio.sleep(self._settings.poll_s)


def _backoff_s(failures: int) -> float:
    return min(BACKOFF_S * 2.0 ** min(failures, 10), BACKOFF_MAX_S)
