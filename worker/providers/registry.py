"""Which providers there are: one client per process and vendor."""

import asyncio
import gc
import importlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from shared.clock import Clock, SystemClock
from shared.settings import CompatibleServer, Settings
from worker.providers.base import Provider
from worker.providers.sim import SimProvider
from worker.providers.transport import HttpClient

Loader = Callable[[], Provider]
Wrap = Callable[[Provider], Provider]


def _bare(provider: Provider) -> Provider:
    return provider


class Providers:
    """The providers by name.

    The vendors' SDKs take seconds to import: `preload` does that beside the loop, and whoever
    needs one meanwhile waits for it.
    """

    def __init__(
        self,
        ready: Iterable[Provider],
        loaders: Mapping[str, tuple[str, Loader]] | None = None,
        wrap: Wrap = _bare,
    ) -> None:
        self._wrap = wrap
        self._ready = {provider.name: wrap(provider) for provider in ready}
        self._loaders = dict(loaders or {})
        self._loading: dict[str, asyncio.Task[Provider]] = {}

    def preload(self) -> None:
        """Begin to load what is not loaded."""
        for name in self._loaders:
            _ = self._load(name)

    async def get(self, name: str) -> Provider | None:
        found = self._ready.get(name)
        if found is None and name in self._loaders:
            return await asyncio.shield(self._load(name))
        return found

    async def aclose(self) -> None:
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        await asyncio.gather(*(provider.aclose() for provider in self._ready.values()))

    def _load(self, name: str) -> "asyncio.Task[Provider]":
        if name not in self._loading:
            self._loading[name] = asyncio.create_task(self._loaded(name))
        return self._loading[name]

    async def _loaded(self, name: str) -> Provider:
        module, make = self._loaders[name]
        await asyncio.to_thread(importlib.import_module, module)
        gc.freeze()  # an SDK's hundred thousands of objects stay: no collection need look at them
        self._ready[name] = self._wrap(make())
        return self._ready[name]


def build(settings: Settings, clock: Clock | None = None, wrap: Wrap = _bare) -> Providers:
    """Make every provider, handed out as `wrap` returns it; the first call opens connections."""
    clock = clock or SystemClock(settings.clock_skew_s)

    def openai() -> Provider:
        from worker.providers.openai import OpenAiProvider  # noqa: PLC0415 (slow to import)

        return OpenAiProvider(
            base_url=settings.openai_base_url, http_client=_http_client(settings), clock=clock
        )

    def anthropic() -> Provider:
        from worker.providers.anthropic import AnthropicProvider  # noqa: PLC0415 (slow to import)

        return AnthropicProvider(
            base_url=settings.anthropic_base_url,
            http_client=_http_client(settings),
            clock=clock,
        )

    def compatible(name: str, server: CompatibleServer) -> Provider:
        from worker.providers.openai import CompatibleProvider  # noqa: PLC0415 (slow to import)

        return CompatibleProvider(name, server, http_client=_http_client(settings), clock=clock)

    servers = {
        name: ("worker.providers.openai", partial(compatible, name, server))
        for name, server in settings.providers.items()
    }
    return Providers(
        (SimProvider(),),
        {
            "openai": ("worker.providers.openai", openai),
            "anthropic": ("worker.providers.anthropic", anthropic),
            **servers,
        },
        wrap,
    )


def _http_client(settings: Settings) -> HttpClient:
    return HttpClient(
        connections=settings.slots,
        connect_timeout_s=settings.connect_timeout_s,
        response_max_bytes=settings.response_max_bytes,
    )
