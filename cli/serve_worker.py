"""The worker as a process: work, drain, and leave in good order."""

import asyncio
from contextlib import suppress

from cli import liveness
from cli.serve import Stop, check, collect_rarely, opened
from shared import log, metrics
from shared.services.levels import Levels
from shared.settings import Settings
from worker.main import WorkerProcess

_log = log.get(__name__)


async def serve_worker(settings: Settings, stop: Stop) -> None:
    """Work until asked to stop, then drain. Raises `StartError`, or what broke the worker."""
    async with opened(settings, worker=True) as (state, lanes):
        await check(state, lanes)
        process = WorkerProcess(state, lanes)
        await process.start()
        collect_rarely()
        _log.info("worker_ready", slots=settings.slots)
        async with liveness.shown(settings):
            try:
                with metrics.looked_at(Levels(state, "worker").look, process.look):
                    await _worked(process, stop)
            finally:
                await process.stop()


async def _worked(process: WorkerProcess, stop: Stop) -> None:
    await _until_stopped(process, stop)
    draining = asyncio.ensure_future(process.drain())
    at_once = asyncio.ensure_future(stop.now.wait())
    await asyncio.wait({draining, at_once}, return_when=asyncio.FIRST_COMPLETED)
    draining.cancel()
    at_once.cancel()


async def _until_stopped(process: WorkerProcess, stop: Stop) -> None:
    while not stop.asked.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.asked.wait(), 1.0)
        error = process.failed()
        if error is not None:
            raise error
