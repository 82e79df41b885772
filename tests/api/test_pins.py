"""Pins as clients of the native door set, read, move and remove them."""

import httpx
import pytest

from shared.deps import Deps
from tests.api.clients import client_with, problem
from tests.factories import Tenant, a_prompt

PIN = "/environments/production/pins/greeting"
VERSION = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello {{ name }}"}]}


@pytest.fixture(autouse=True)
async def greeting(deps: Deps, tenant: Tenant, client: httpx.AsyncClient) -> None:
    """`greeting` with a published version, a draft and another published one; `staging`."""
    await a_prompt(deps, tenant)
    for publish in (False, True):
        await client.post("/prompts/greeting/versions", json=VERSION | {"publish": publish})
    await client.post("/environments", json={"name": "staging"})


async def _pin(client: httpx.AsyncClient, version: int, comment: str = "") -> httpx.Response:
    answer = await client.put(PIN, json={"version": version, "comment": comment})
    assert 200 == answer.status_code, answer.text
    return answer


async def test_a_pin_is_shown_by_its_environment_and_by_its_prompt(
    client: httpx.AsyncClient,
) -> None:
    made = await _pin(client, 1, "First light")

    body = made.json()
    assert ("production", "greeting", 1, "First light") == tuple(
        body[name] for name in ("environment", "prompt", "version", "comment")
    )
    read = await client.get(PIN)
    assert (body, made.headers["etag"]) == (read.json(), read.headers["etag"])
    for path in ("/environments/PRODUCTION/pins", "/prompts/greeting/pins"):
        assert [body] == (await client.get(path)).json()["data"]
    assert [] == (await client.get("/environments/staging/pins")).json()["data"]
    assert 1 == (await client.get("/prompts/greeting/__pinned__")).json()["number"]


async def test_every_move_of_a_pin_is_kept_with_its_comment(client: httpx.AsyncClient) -> None:
    for version, comment in ((1, "a"), (3, "b"), (3, "once more"), (1, "c")):
        await _pin(client, version, comment)
    removed = await client.delete(PIN)

    assert 204 == removed.status_code
    assert (404, "not_found", []) == problem(await client.get(PIN))
    assert 404 == (await client.delete(PIN)).status_code
    history = (await client.get(f"{PIN}/history")).json()["data"]
    assert [(1, None, ""), (3, 1, "c"), (1, 3, "b"), (None, 1, "a")] == [
        (move["from"], move["to"], move["comment"]) for move in history
    ]
    assert {("a key", None)} == {(move["keyName"], move["source"]) for move in history}


async def test_a_pinned_draft_is_published_and_stays_as_it_is(client: httpx.AsyncClient) -> None:
    await _pin(client, 2)

    version = (await client.get("/prompts/greeting/versions/2")).json()
    replaced = await client.put("/prompts/greeting/versions/2", json=VERSION)
    deleted = await client.delete("/prompts/greeting/versions/2")

    assert version["published"]
    assert (409, "version_published", []) == problem(replaced)
    assert (409, "version_in_use", []) == problem(deleted)
    assert "production" in deleted.json()["detail"]


async def test_only_the_state_one_has_seen_is_moved_or_removed(client: httpx.AsyncClient) -> None:
    nothing = await client.put(PIN, json={"version": 1}, headers={"If-Match": "*"})
    seen = (await _pin(client, 1)).headers["etag"]
    await _pin(client, 3)

    late = {"If-Match": seen}
    moved = await client.put(PIN, json={"version": 1}, headers=late)
    removed = await client.delete(PIN, headers=late)

    assert [412, 412, 412] == [one.status_code for one in (nothing, moved, removed)]
    assert 3 == (await client.get(PIN)).json()["version"]


async def test_what_cannot_be_pinned_is_refused_at_its_field(client: httpx.AsyncClient) -> None:
    refused = await client.put(PIN, json={"version": "live", "comment": "x" * 2_001})

    assert (422, "invalid", ["/version", "/comment"]) == problem(refused)
    for path in ("/environments/nowhere/pins/greeting", "/environments/production/pins/nothing"):
        assert 404 == (await client.put(path, json={"version": 1})).status_code
    assert 404 == (await client.put(PIN, json={"version": 9})).status_code


async def test_a_key_for_some_environments_neither_sees_nor_moves_other_pins(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await _pin(client, 1)
    made = await client.post(
        "/keys", json={"name": "s", "scopes": ["prompts:write"], "environments": ["staging"]}
    )

    async with client_with(deps, made.json()["key"]) as limited:
        listed = (await limited.get("/prompts/greeting/pins")).json()["data"]
        refused = [
            await limited.get(PIN),
            await limited.get(f"{PIN}/history"),
            await limited.get("/environments/production/pins"),
            await limited.put(PIN, json={"version": 3}),
            await limited.delete(PIN),
        ]
        own = await limited.put("/environments/staging/pins/greeting", json={"version": 3})

    assert [] == listed
    assert {(403, "environment_forbidden")} == {problem(one)[:2] for one in refused}
    assert 200 == own.status_code


async def test_pins_of_a_deleted_environment_or_prompt_are_gone(client: httpx.AsyncClient) -> None:
    await _pin(client, 1)
    await client.put("/environments/staging/pins/greeting", json={"version": 3})

    await client.delete("/environments/staging")
    await client.post("/environments", json={"name": "staging"})
    left = (await client.get("/prompts/greeting/pins")).json()["data"]
    await client.delete("/prompts/greeting")

    assert ["production"] == [pin["environment"] for pin in left]
    assert [] == (await client.get("/environments/staging/pins")).json()["data"]
    assert [] == (await client.get("/environments/production/pins")).json()["data"]
