"""The list of models: what can be run here, and what it costs."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from shared.deps import Deps
from shared.domain import simulated
from tests.api.clients import client_with, problem
from tests.factories import Tenant, a_key, a_tenant
from worker.providers.sim import MODELS


async def listed(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    """Every page of the list, walked by cursors."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = await client.get("/models", params={**query, **after})
        assert 200 == page.status_code, page.text
        body = page.json()
        found += body["data"]
        assert body["hasMore"] == (body["nextCursor"] is not None)
        if not body["hasMore"]:
            return found
        after = {"after": body["nextCursor"]}


async def providers(client: httpx.AsyncClient) -> set[str]:
    return {model["provider"] for model in await listed(client, limit="100")}


async def test_the_simulated_models_are_there_for_everybody(client: httpx.AsyncClient) -> None:
    found = await listed(client)

    assert sorted(f"sim/{name}" for name in MODELS) == [model["id"] for model in found]
    assert {
        "id": "sim/echo",
        "provider": "sim",
        "model": "echo",
        "name": None,
        "contextWindow": None,
        "prices": {"input": 1, "cachedInput": 0.1, "cacheWrite": 1, "output": 4},
    } == next(model for model in found if model["model"] == "echo")


async def test_the_models_of_a_vendor_are_there_once_an_environment_has_its_key(
    client: httpx.AsyncClient,
) -> None:
    before = await providers(client)
    await client.put("/environments/production/variables/ANTHROPIC_API_KEY", json={"value": "sk-1"})
    found = await listed(client)
    await client.delete("/environments/production/variables/ANTHROPIC_API_KEY")
    after = await providers(client)

    ids = [model["id"] for model in found]
    assert ({"sim"}, {"sim"}) == (before, after)
    assert ids == sorted(set(ids))
    assert {
        "id": "anthropic/claude-sonnet-4-5",
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "name": "Claude Sonnet 4.5",
        "contextWindow": 200_000,
        "prices": {"input": 3, "cachedInput": 0.3, "cacheWrite": 3.75, "output": 15},
    } == next(model for model in found if model["model"] == "claude-sonnet-4-5")


async def test_models_that_take_or_give_no_text_are_left_out(client: httpx.AsyncClient) -> None:
    await client.put("/environments/production/variables/OPENAI_API_KEY", json={"value": "sk-1"})

    names = {model["model"] for model in await listed(client, provider="openai")}

    assert {"gpt-5-mini", "gpt-4o", "o3"} <= names
    assert not [
        name for name in names if any(word in name for word in ("embedding", "image", "tts", "ft:"))
    ]


async def test_the_servers_own_key_counts_for_workspaces_that_may_use_it(deps: Deps) -> None:
    keyed = replace(
        deps, settings=deps.settings.model_copy(update={"openai_api_key": SecretStr("sk-server")})
    )
    allowed, other = await a_tenant(deps, server_credentials=True), await a_tenant(deps)

    async with client_with(keyed, allowed.key) as client:
        first = await providers(client)
    async with client_with(keyed, other.key) as client:
        second = await providers(client)
    async with client_with(deps, allowed.key) as client:
        without = await providers(client)

    assert ({"openai", "sim"}, {"sim"}, {"sim"}) == (first, second, without)


async def test_a_limited_key_sees_models_that_its_environments_can_call(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    for name in ("staging", "testing"):
        await client.post("/environments", json={"name": name})
    await client.put("/environments/staging/variables/OPENAI_API_KEY", json={"value": "sk-1"})
    seen = {}
    for name in ("staging", "testing"):
        wanted = {"name": name, "scopes": ["prompts:read"], "environments": [name]}
        made = await client.post("/keys", json=wanted)
        async with client_with(deps, made.json()["key"]) as limited:
            seen[name] = await providers(limited)

    assert {"staging": {"openai", "sim"}, "testing": {"sim"}} == seen


async def test_a_deleted_environments_key_and_a_foreign_one_count_for_nobody(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await client.post("/environments", json={"name": "staging"})
    await client.put("/environments/staging/variables/OPENAI_API_KEY", json={"value": "sk-1"})
    other = await a_tenant(deps)

    async with client_with(deps, other.key) as neighbour:
        foreign = await providers(neighbour)
    before = await providers(client)
    await client.delete("/environments/staging")

    assert ({"sim"}, {"openai", "sim"}) == (foreign, before)
    assert {"sim"} == await providers(client)


async def test_the_list_is_cut_into_pages_of_one_provider(client: httpx.AsyncClient) -> None:
    await client.put("/environments/production/variables/OPENAI_API_KEY", json={"value": "sk-1"})

    simulated_models = await listed(client, provider="sim", limit="3")
    none = await listed(client, provider="anthropic")
    first = (await client.get("/models", params={"limit": "3"})).json()
    elsewhere = await client.get(
        "/models", params={"after": first["nextCursor"], "provider": "openai"}
    )

    assert sorted(simulated.MODELS) == [model["model"] for model in simulated_models]
    assert [] == none
    assert (400, "invalid_cursor", []) == problem(elsewhere)


@pytest.mark.parametrize(
    "query", ["provider=", "provider=nobody", "provider=sim&provider=sim", "limit=0", "page=2"]
)
async def test_a_query_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, query: str
) -> None:
    assert 400 == (await client.get(f"/models?{query}")).status_code


async def test_the_list_takes_the_scope_to_read_prompts(deps: Deps, tenant: Tenant) -> None:
    reader, _ = await a_key(deps, tenant.workspace_id, ("prompts:read",))
    runner, _ = await a_key(deps, tenant.workspace_id, ("runs:write",))

    async with client_with(deps, reader) as holder:
        shown = await holder.get("/models")
    async with client_with(deps, runner) as holder:
        refused = await holder.get("/models")

    assert 200 == shown.status_code
    assert (403, "missing_scope", []) == problem(refused)
