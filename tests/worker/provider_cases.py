"""Requests and providers pointed at the fake vendors, for the suites of the providers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.domain.completions import CompletionRequest, Message, ModelParams, ProviderError
from shared.settings import CompatibleServer, Settings
from tests.vendors import VendorServer
from worker.providers import registry
from worker.providers.base import Provider

KEY = "sk-tenant-0123456789abcdef"
RUN_ID = "01930000-0000-7000-8000-000000000001"
HTTP_VENDORS = ("openai", "anthropic", "compatible")


def a_request(model: str = "some-model", **changes: Any) -> CompletionRequest:
    fields: dict[str, Any] = {
        "run_id": RUN_ID,
        "attempt": 1,
        "messages": (Message("system", "Be brief."), Message("user", "Say hello.")),
        "params": ModelParams(),
        "response_format": None,
        "api_key": KEY,
        "timeout_s": 10.0,
    }
    return CompletionRequest(model=model, **{**fields, **changes})


@asynccontextmanager
async def provider_at(name: str, url: str, **settings: Any) -> AsyncIterator[Provider]:
    """The named provider as the registry builds it, calling `url` instead of its vendor."""
    providers = registry.build(
        Settings(
            openai_base_url=f"{url}/v1",
            anthropic_base_url=url,
            providers={"compatible": CompatibleServer(base_url=f"{url}/v1")},
            **settings,
        )
    )
    provider = await providers.get(name)
    assert provider is not None
    try:
        yield provider
    finally:
        await providers.aclose()


async def failure_of(provider: Provider, request: CompletionRequest) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.complete(request)
    return caught.value


async def failure_at(name: str, server: VendorServer, request: CompletionRequest) -> ProviderError:
    async with provider_at(name, server.url) as provider:
        return await failure_of(provider, request)
