"""Aliases as clients set them, and what runs make of them."""

from collections import Counter
from random import Random
from typing import Any

import httpx
import pytest

from shared import deps as shared_deps
from shared.deps import Deps
from shared.queue.lanes import Lanes
from tests.api.clients import client_with, problem
from tests.factories import Tenant
from worker.main import WorkerProcess

ALIAS = "/models/aliases/quick"
SAID = {"messages": [{"role": "user", "content": "Hello"}]}


async def _set(client: httpx.AsyncClient, *models: str, **changes: Any) -> httpx.Response:
    answer = await client.put(ALIAS, json={"models": models, **changes})
    assert 200 == answer.status_code, answer.text
    return answer


async def _version(client: httpx.AsyncClient, model: str = "quick", **changes: Any) -> None:
    await client.post("/prompts", json={"name": "greeting"})
    body = {"model": model, **SAID, **changes}
    answer = await client.post("/prompts/greeting/versions", json=body)
    assert 201 == answer.status_code, answer.text


async def _run(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/prompts/greeting/__latest__/runs", json={"inputs": {}, **changes})
    assert 200 == answer.status_code, answer.text
    return dict((await client.get(f"/runs/{answer.json()['id']}")).json())


async def test_an_alias_is_set_read_listed_and_deleted(client: httpx.AsyncClient) -> None:
    made = await _set(client, "sim/echo", "sim/slow", description="Good enough")

    assert ("quick", ["sim/echo", "sim/slow"], "Sequential", None, "Good enough") == tuple(
        made.json()[name] for name in ("alias", "models", "strategy", "weights", "description")
    )
    read = await client.get(ALIAS)
    assert (made.json(), made.headers["etag"]) == (read.json(), read.headers["etag"])
    assert [made.json()] == (await client.get("/models/aliases")).json()["data"]
    first = (await client.get("/models", params={"limit": 1})).json()["data"]
    assert [("alias/quick", "alias", "Good enough", None)] == [
        (one["id"], one["provider"], one["name"], one["prices"]) for one in first
    ]
    assert first == (await client.get("/models", params={"provider": "alias"})).json()["data"]
    stale = {"If-Match": '"another"'}
    assert 412 == (await client.delete(ALIAS, headers=stale)).status_code
    assert 204 == (await client.delete(ALIAS)).status_code
    assert [404, 404] == [
        (await client.request(method, ALIAS)).status_code for method in ("GET", "DELETE")
    ]


async def test_an_alias_points_at_no_other(client: httpx.AsyncClient) -> None:
    await _set(client, "sim/echo")

    for model in ("quick", "alias/quick"):
        refused = await client.put("/models/aliases/slow", json={"models": [model]})
        assert (422, "invalid", ["/models/0"]) == problem(refused)


async def test_a_version_names_an_alias_that_is_there(client: httpx.AsyncClient) -> None:
    await client.post("/prompts", json={"name": "greeting"})
    refused = await client.post("/prompts/greeting/versions", json={"model": "quick", **SAID})
    await _set(client, "sim/echo")
    await _version(client)
    await _version(client, "alias/quick")

    assert (422, "invalid", ["/model"]) == problem(refused)
    bodies = [
        (await client.get(f"/prompts/greeting/versions/{number}")).json()["body"]
        for number in (1, 2)
    ]
    assert ["alias/quick"] * 2 == [body["templates"]["main"]["model"] for body in bodies]
    revision = (await client.get("/prompts/greeting/1")).json()
    assert ("alias", "quick") == (revision["provider"], revision["model"])


async def test_a_run_falls_back_from_model_to_model_of_its_alias_and_then_to_the_template_s(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes
) -> None:
    await _set(client, "sim/unknown-1", "sim/unknown-2")
    await _version(client, fallbacks=["sim/echo"])
    worker = WorkerProcess(deps, lanes)
    await worker.start()

    accepted = await client.post(
        "/prompts/greeting/1/runs", json={"inputs": {}}, headers={"Prefer": "wait=20"}
    )
    run = (await client.get(f"/runs/{accepted.json()['id']}")).json()
    await worker.stop()

    assert "succeeded" == run["status"]
    assert ["sim/unknown-1", "sim/unknown-2", "sim/echo"] == [
        attempt["model"] for attempt in run["attempts"]
    ]


async def test_a_changed_alias_counts_for_the_next_submission_of_every_process(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await _set(client, "sim/echo")
    await _version(client)
    warm = shared_deps.build(deps.settings, deps.clock, Random(8), deps.store, deps.lanes)
    async with client_with(warm, tenant.key) as other:
        found = [(await _run(process))["model"] for process in (client, other)]
        await _set(client, "sim/slow")
        found += [(await _run(process))["model"] for process in (other, client)]
        await client.delete(ALIAS)
        refused = await other.post("/prompts/greeting/1/runs", json={"inputs": {}})
        named = await _run(other, model="sim/429")

    assert ["sim/echo", "sim/echo", "sim/slow", "sim/slow"] == found
    assert (422, "unknown_alias", []) == problem(refused)
    assert "sim/429" == named["model"]


async def test_runs_go_round_the_models_of_an_alias_in_every_process(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await _set(client, "sim/echo", "sim/slow", strategy="RoundRobin")
    await _version(client)
    warm = shared_deps.build(deps.settings, deps.clock, Random(8), deps.store, deps.lanes)
    async with client_with(warm, tenant.key) as other:
        batch = {"runs": [{"prompt": "greeting", "version": "1", "inputs": {}}] * 10}
        for process in (client, other):
            assert 200 == (await process.post("/runs/batch", json=batch)).status_code

    listed = (await client.get("/runs", params={"limit": 100})).json()["data"]
    assert {"sim/echo": 10, "sim/slow": 10} == Counter(run["model"] for run in listed)


async def test_a_request_s_alias_is_resolved_and_beats_the_version_s_model(
    client: httpx.AsyncClient,
) -> None:
    await _set(client, "sim/slow", strategy="Random")
    await _version(client, "sim/echo", fallbacks=["sim/500"])

    run = await _run(client, model="quick")
    preview = await client.post(
        "/prompts/greeting/1/preview", json={"inputs": {}, "model": "quick"}
    )

    assert ("sim/slow", "sim/slow") == (run["model"], preview.json()["model"])


@pytest.mark.parametrize("scope", ["prompts:read", "runs:write"])
async def test_only_who_writes_prompts_sets_aliases(
    client: httpx.AsyncClient, deps: Deps, scope: str
) -> None:
    made = await client.post("/keys", json={"name": "reader", "scopes": [scope]})

    async with client_with(deps, made.json()["key"]) as reader:
        refused = await reader.put(ALIAS, json={"models": ["sim/echo"]})

    assert (403, "missing_scope", []) == problem(refused)
