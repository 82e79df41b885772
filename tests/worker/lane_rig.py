"""A handler that remembers, and lanes to try the worker on."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.queue.port import Ring
from shared.settings import Settings
from worker.lanes import LaneWorker
from worker.running import Stop, stop_reason

NEVER_S = 600.0
"""A poll so rare that only bells, due times and freed slots can explain a start."""


class RecordingHandler:
    """Takes everything it is given, except `refused`; a run waits for `gate` where there is one."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.gate = gate
        self.may = True
        self.asked = 0
        self.refused: set[RunId] = set()
        self.takes: list[Sequence[RunId]] = []
        self.started: list[RunId] = []
        self.ended: list[RunId] = []
        self.stops: dict[RunId, Stop | None] = {}
        self.on_take: Callable[[Sequence[RunId]], Coroutine[Any, Any, None]] | None = None
        self.on_run: Callable[[RunId], Coroutine[Any, Any, None]] | None = None

    def may_start(self) -> bool:
        self.asked += 1
        return self.may

    async def take(self, ids: Sequence[RunId]) -> Mapping[RunId, RunId | None]:
        self.takes.append(ids)
        if self.on_take:
            await self.on_take(ids)
        return {run_id: None if run_id in self.refused else run_id for run_id in ids}

    async def run(self, claimed: RunId) -> None:
        self.started.append(claimed)
        try:
            if self.on_run:
                await self.on_run(claimed)
            if self.gate:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.stops[claimed] = stop_reason()
            raise
        self.ended.append(claimed)


@pytest.fixture(name="lanes")
async def fresh_lanes(redis_url: str) -> AsyncIterator[Lanes]:
    lanes = connect(redis_url)
    await lanes.flushall()
    yield lanes
    await lanes.aclose(close_connection_pool=True)


@asynccontextmanager
async def working(
    lanes: Lanes, handler: RecordingHandler, *, settings: Settings | None = None, **options: Any
) -> AsyncIterator[LaneWorker[RunId]]:
    """Run a worker for the duration of a block, and show its failure if it dies."""
    worker = LaneWorker(lanes, handler, settings or Settings(poll_s=0.05), **options)
    running = asyncio.create_task(worker.async_run())
    try:
        yield worker
        if running.done():
            running.result()
    finally:
        await worker.close()
        await asyncio.gather(running, return_exceptions=True)


def a_ring(lane: Lane = Lane.NORMAL, due_ms: int | None = None) -> Ring:
    return Ring(RunId(new_id()), lane, due_ms)


def ids(rings: Sequence[Ring]) -> Counter[RunId]:
    return Counter(ring.run_id for ring in rings)


async def until(
    holds: Callable[[], bool] | Callable[[], Awaitable[bool]], timeout_s: float = 10
) -> None:
    """Wait until something holds; fail when it does not in time."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)
