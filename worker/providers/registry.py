"""Which providers there are: one client per process and vendor."""

import asyncio
from collections.abc import Iterable

from shared.clock import Clock, SystemClock
from shared.settings import Settings
from worker.providers.anthropic import AnthropicProvider
from worker.providers.base import Provider
from worker.providers.openai import OpenAiProvider
from worker.providers.sim import SimProvider
from worker.providers.transport import HttpClient


class Providers:
    """The providers by name."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._by_name = {provider.name: provider for provider in providers}

    def get(self, name: str) -> Provider | None:
        return self._by_name.get(name)

    async def aclose(self) -> None:
        await asyncio.gather(*(provider.aclose() for provider in self._by_name.values()))


def build(settings: Settings, clock: Clock | None = None) -> Providers:
    """Make every provider. Connections are opened by the first call, as many as there are slots."""
    clock = clock or SystemClock(settings.clock_skew_s)
    return Providers(
        (
            OpenAiProvider(
                base_url=settings.openai_base_url, http_client=_http_client(settings), clock=clock
            ),
            AnthropicProvider(
                base_url=settings.anthropic_base_url,
                http_client=_http_client(settings),
                clock=clock,
            ),
            SimProvider(),
        )
    )


def _http_client(settings: Settings) -> HttpClient:
    return HttpClient(
        connections=settings.slots,
        connect_timeout_s=settings.connect_timeout_s,
        response_max_bytes=settings.response_max_bytes,
    )
