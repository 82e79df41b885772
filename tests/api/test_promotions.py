"""Comparing environments, and promoting one to another in one step."""

from typing import Any

import httpx
import pytest

from shared.deps import Deps
from shared.domain.prompts import PINNED
from tests.api.clients import client_with, problem

MAIN = {"name": "main", "template": "Hello", "llm": "sim/echo"}
BETWEEN = {"sourceEnvironment": "staging", "targetEnvironment": "production"}

_HUNDRED = """
WITH flow AS (
  INSERT INTO prompts (id, workspace_id, slug, name, description, last_number)
  SELECT gen_random_uuid(), %(workspace)s, 'flow-' || n, 'Flow ' || n, '', 1
  FROM generate_series(1, 100) AS n RETURNING id
), version AS (
  INSERT INTO prompt_versions (id, workspace_id, prompt_id, number, body, published_at)
  SELECT gen_random_uuid(), %(workspace)s, id, 1, %(body)s, now() FROM flow RETURNING id, prompt_id
)
INSERT INTO environment_pins (environment_id, prompt_id, workspace_id, version_id, comment)
SELECT (SELECT id FROM environments WHERE workspace_id = %(workspace)s AND name = 'staging'),
  prompt_id, %(workspace)s, id, '' FROM version
"""


@pytest.fixture(autouse=True)
async def staging(client: httpx.AsyncClient) -> None:
    """`staging`, where `one` runs 2 and `two` runs 1; `production`, where both run 1."""
    await client.post("/environments", json={"name": "staging"})
    for slug in ("one", "two", "three"):
        await client.post("/flows", json={"title": slug})
        await client.put(f"/flows/{slug}/versions/1", json={"templates": [MAIN]})
        await client.post(f"/flows/{slug}/versions/1/fork")
    for slug, environment, version in (
        ("one", "staging", 2), ("one", "production", 1), ("two", "staging", 1),
        ("two", "production", 1), ("three", "production", 1),
    ):  # fmt: skip
        path = f"/environments/{environment}/pins/{slug}"
        assert 200 == (await client.put(path, json={"version": version})).status_code


async def _pins(client: httpx.AsyncClient, environment: str) -> dict[str, int]:
    listed = await client.get(f"/environments/{environment}/pins", params={"limit": 100})
    return {one["prompt"]: one["version"] for one in listed.json()["data"]}


async def _promote(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await client.post("/environments/promote", json=BETWEEN | changes)


async def test_a_diff_names_every_flow_with_its_version_on_both_sides(
    client: httpx.AsyncClient,
) -> None:
    found = (await client.get("/environments/diff", params=BETWEEN)).json()["data"]

    assert [("one", 2, 1, True), ("three", None, 1, True), ("two", 1, 1, False)] == [
        (one["slug"], one["sourceVersion"], one["targetVersion"], one["differs"]) for one in found
    ]
    assert (None, "three") == (found[1]["sourceVersionId"], found[1]["title"])
    first = (await client.get("/environments/diff", params=BETWEEN | {"limit": 2})).json()
    after = BETWEEN | {"after": first["nextCursor"]}
    assert (
        found
        == first["data"] + (await client.get("/environments/diff", params=after)).json()["data"]
    )


async def test_promoting_copies_the_source_s_pins_and_leaves_other_flows(
    client: httpx.AsyncClient,
) -> None:
    promoted = (await _promote(client, comment="Release 42")).json()

    assert [("one", 1, 2)] == [
        (one["slug"], one["from"], one["to"]) for one in promoted["promoted"]
    ]
    assert 1 == promoted["unchanged"]
    assert {"one": 2, "two": 1, "three": 1} == await _pins(client, "production")
    moves = (await client.get("/environments/production/pins/one/history")).json()["data"]
    assert [("Release 42", "staging"), ("", None)] == [
        (move["comment"], move["source"]) for move in moves
    ]
    again = (await _promote(client)).json()
    assert ([], 2) == (again["promoted"], again["unchanged"])
    run = await client.post(f"/prompts/one/{PINNED}/preview", json={"inputs": {}})
    assert 2 == run.json()["prompt"]["version"]


async def test_only_the_flows_named_are_promoted(client: httpx.AsyncClient) -> None:
    one = (await client.get("/flows/one")).json()["id"]
    await client.put("/environments/staging/pins/two", json={"version": 2})

    promoted = await _promote(client, flowIds=[one, "one"])

    assert ["one"] == [moved["slug"] for moved in promoted.json()["promoted"]]
    assert {"one": 2, "two": 1, "three": 1} == await _pins(client, "production")


async def test_a_hundred_flows_move_at_once_each_with_the_comment_in_its_history(
    client: httpx.AsyncClient, deps: Deps, tenant: Any
) -> None:
    body = '{"entrypoint":"main","syntax":"brackets","templates":{"main":{}}}'
    await deps.store.execute(_HUNDRED, {"workspace": tenant.workspace_id, "body": body})

    promoted = await _promote(client, comment="Release 42")

    assert 101 == len(promoted.json()["promoted"])
    ((transactions, rows),) = await deps.store.fetch(
        "SELECT count(DISTINCT xmin::text), count(*) FROM environment_pin_history"
        " WHERE comment = 'Release 42' AND to_number IS NOT NULL",
        {},
    )
    assert (1, 101) == (transactions, rows)
    history = (await client.get("/environments/production/pins/flow-77/history")).json()["data"]
    assert [(None, 1, "Release 42", "staging")] == [
        (move["from"], move["to"], move["comment"], move["source"]) for move in history
    ]
    again = (await _promote(client)).json()
    assert ([], 102) == (again["promoted"], again["unchanged"])


async def test_a_promotion_that_cannot_be_done_whole_does_nothing(
    client: httpx.AsyncClient,
) -> None:
    refused = await _promote(client, flowIds=["one", "three", "nothing"])

    assert (422, "invalid", ["/flowIds/1", "/flowIds/2"]) == problem(refused)
    assert {"one": 1, "two": 1, "three": 1} == await _pins(client, "production")


@pytest.mark.parametrize(
    ("changes", "status", "pointers"),
    [
        ({"sourceEnvironment": "x"}, 422, ["/sourceEnvironment"]),
        ({"targetEnvironment": "x"}, 422, ["/targetEnvironment"]),
        ({"targetEnvironment": "STAGING"}, 422, ["/targetEnvironment"]),
        ({"flowIds": []}, 422, ["/flowIds"]),
        ({"comment": "x" * 2_001}, 422, ["/comment"]),
    ],
)
async def test_what_cannot_be_promoted_is_refused_at_its_field(
    client: httpx.AsyncClient, changes: dict[str, Any], status: int, pointers: list[str]
) -> None:
    answer = await _promote(client, **changes)

    assert (status, pointers) == (answer.status_code, problem(answer)[2])


async def test_a_diff_wants_two_environments_that_are_there(client: httpx.AsyncClient) -> None:
    for params, status in (
        ({}, 400),
        ({"sourceEnvironment": "staging"}, 400),
        (BETWEEN | {"targetEnvironment": "x"}, 404),
    ):
        assert status == (await client.get("/environments/diff", params=params)).status_code


async def test_a_key_for_some_environments_promotes_between_those_only(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    scopes = {"scopes": ["prompts:write"], "environments": ["staging"]}
    made = await client.post("/keys", json={"name": "s", **scopes})
    back = {"sourceEnvironment": "production", "targetEnvironment": "staging"}
    await _promote(client, **back, flowIds=["three"])

    async with client_with(deps, made.json()["key"]) as limited:
        answers = [
            await _promote(limited),
            await _promote(limited, **back),
            await limited.get("/environments/diff", params=BETWEEN),
        ]
        path = "/environments/staging/pins/three/history"
        moves = [(await one.get(path)).json()["data"][0] for one in (client, limited)]

    assert ["production", None] == [move["source"] for move in moves]
    assert {(403, "environment_forbidden")} == {problem(one)[:2] for one in answers}
