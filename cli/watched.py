"""What lets others watch a process: its metrics and its traces."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from cli.serve_metrics import metrics_served
from shared import log, tracing
from shared.settings import Settings

_log = log.get(__name__)


@asynccontextmanager
async def watched(settings: Settings, service: str) -> AsyncIterator[None]:
    """Serve metrics and send traces for the length of a block, as far as the settings say so.

    Raises `StartError`.
    """
    async with metrics_served(settings):
        endpoint = settings.otel_exporter_otlp_endpoint
        if not endpoint:
            yield
            return
        tracing.start(endpoint, service, version("runlane"), contents=settings.trace_contents)
        _log.info("traces_ready", endpoint=endpoint, contents=settings.trace_contents)
        try:
            yield
        finally:
            await asyncio.to_thread(tracing.stop)
