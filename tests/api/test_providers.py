"""Servers that the operator named: models of theirs are accepted, listed and called."""

import httpx
import pytest

from shared.settings import CompatibleServer, Settings

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(name="settings")
def settings_with_servers(settings: Settings) -> Settings:
    url = "http://127.0.0.1:9/v1"
    servers = {
        "groq": CompatibleServer(base_url=url),
        "gemini": CompatibleServer(base_url=url, key_variable="GOOGLE_KEY"),
        "ollama": CompatibleServer(base_url=url, key_variable=None),
    }
    return settings.model_copy(update={"providers": servers})


async def _providers(client: httpx.AsyncClient) -> set[str]:
    found: set[str] = set()
    for name in ("sim", "groq", "gemini", "ollama", "openai"):
        page = await client.get("/models", params={"provider": name})
        assert 200 == page.status_code, page.text
        found |= {model["provider"] for model in page.json()["data"]}
    return found


async def test_a_version_may_name_a_server_and_fall_back_to_another(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/prompts", json={"name": "named"})
    body = {
        "model": "groq/meta/llama-4",
        "fallbacks": ["ollama/llama4"],
        "messages": MESSAGES,
    }

    made = await client.post("/prompts/named/versions", json=body)
    shown = await client.get("/prompts/named/1")

    assert 201 == made.status_code, made.text
    assert ("groq", "meta/llama-4") == (shown.json()["provider"], shown.json()["model"])


async def test_a_server_nobody_named_is_unknown(client: httpx.AsyncClient) -> None:
    await client.post("/prompts", json={"name": "unnamed"})

    answer = await client.post(
        "/prompts/unnamed/versions", json={"model": "vllm/llama", "messages": MESSAGES}
    )

    assert 422 == answer.status_code
    assert (
        "Name the model's provider, one of openai, anthropic, sim, groq, gemini, ollama"
        in answer.json()["detail"]
    )


async def test_models_are_listed_once_the_key_is_there_under_the_name_that_was_chosen(
    client: httpx.AsyncClient,
) -> None:
    before = await _providers(client)
    for variable in ("GROQ_API_KEY", "GOOGLE_KEY"):
        await client.put(f"/environments/production/variables/{variable}", json={"value": "sk"})
    after = await _providers(client)

    assert ({"sim"}, {"sim", "groq", "gemini"}) == (before, after)
