"""Servers that speak OpenAI's Chat Completions, by name: what differs from OpenAI itself."""

import pytest

from shared.domain.completions import ModelParams
from shared.settings import CompatibleServer, Settings
from tests.vendors import Call, VendorServer
from tests.worker.provider_cases import KEY, a_request
from worker.providers import registry


async def _called(name: str, key: str = KEY, **server: str | None) -> Call:
    """The one call that a provider made of this entry makes."""
    async with VendorServer() as vendors:
        entry = CompatibleServer.model_validate({"base_url": vendors.openai_url, **server})
        providers = registry.build(Settings(providers={name: entry}))
        provider = await providers.get(name)
        assert provider is not None
        params = ModelParams(max_completion_tokens=7)
        try:
            completion = await provider.complete(a_request("a/b", api_key=key, params=params))
        finally:
            await providers.aclose()
        assert completion.text
        (call,) = vendors.ledger
        return call


async def test_a_compatible_server_is_told_the_limit_in_the_word_that_all_of_them_know() -> None:
    call = await _called("openrouter")

    assert ("a/b", 7) == (call.body["model"], call.body["max_tokens"])
    assert "max_completion_tokens" not in call.body
    assert f"Bearer {KEY}" == call.headers["authorization"]


@pytest.mark.parametrize("header", ["api-key", "x-api-key"])
async def test_a_key_goes_into_the_header_that_the_server_wants(header: str) -> None:
    call = await _called("azure", header=header)

    assert KEY == call.headers[header]
    assert "authorization" not in call.headers


async def test_a_server_without_keys_is_sent_none() -> None:
    call = await _called("ollama", key="", key_variable=None)

    assert not {"authorization", "api-key", "x-api-key"} & call.headers.keys()
