"""`/metrics` of a process, on a port of its own."""

import asyncio
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from cli.serve import StartError
from shared import log, metrics
from shared.settings import Settings
from shared.tasks import end

LAG_S = 0.5
_log = log.get(__name__)


@asynccontextmanager
async def metrics_served(settings: Settings) -> AsyncIterator[None]:
    """Answer scrapes for the length of a block, if there is a port. Raises `StartError`."""
    if settings.metrics_port is None:
        yield
        return
    from aiohttp import web  # noqa: PLC0415 (slow to import)

    async def answer(_: web.Request) -> web.Response:
        await asyncio.gather(*(probe() for probe in metrics.probes()))
        # Beside the loop: a thousand series take a tenth of a second.
        text = await asyncio.to_thread(generate_latest, metrics.REGISTRY)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    host, port = settings.metrics_host, settings.metrics_port
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise StartError(
            f"Cannot listen on {host}:{port} ({error.strerror or error}): every process has a"
            " METRICS_PORT of its own."
        ) from error
    metrics.BUILD.set(1, version("runlane"), platform.python_version())
    lagging = asyncio.create_task(_measure_lag())
    _log.info("metrics_ready", port=runner.addresses[0][1])
    try:
        yield
    finally:
        await end([lagging])
        await runner.cleanup()


async def _measure_lag() -> None:
    loop = asyncio.get_running_loop()
    while True:
        began_s = loop.time()
        await asyncio.sleep(LAG_S)
        metrics.LOOP_LAG_S.note(max(loop.time() - began_s - LAG_S, 0))
