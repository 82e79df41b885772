"""The feed of events as a client of the API follows it."""

import struct
from typing import Any

import httpx
import msgspec
import pytest

from api import hook_shapes
from api.paging import Cursors
from shared.deps import Deps
from tests.api.clients import client_with, problem
from tests.factories import Tenant, a_key, a_prompt, a_tenant


@pytest.fixture(autouse=True)
async def _greeting(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant)


async def _canceled(client: httpx.AsyncClient, **fields: object) -> str:
    """A run that ended by being canceled; its id."""
    body = {"inputs": {"name": "Ada"}, **fields}
    run_id = str((await client.post("/prompts/greeting/1/runs", json=body)).json()["id"])
    await client.post(f"/runs/{run_id}/cancel")
    return run_id


async def _feed(client: httpx.AsyncClient, **query: Any) -> Any:
    answer = await client.get("/events", params=query)
    assert 200 == answer.status_code, answer.text
    msgspec.json.decode(answer.content, type=hook_shapes.EventList)
    return answer.json()


def _runs(page: Any) -> list[str]:
    return [event["data"]["run"]["id"] for event in page["data"]]


async def test_events_come_oldest_first_with_the_ids_that_webhooks_have(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/webhooks", json={"url": "http://127.0.0.1:9/"})
    runs = [await _canceled(client) for _ in range(3)]

    first = await _feed(client, limit=2)
    second = await _feed(client, limit=2, after=first["nextCursor"])
    third = await _feed(client, after=second["nextCursor"])

    assert [runs[:2], runs[2:], []] == [_runs(page) for page in (first, second, third)]
    assert [True, False, False] == [page["hasMore"] for page in (first, second, third)]
    delivered = (await client.get(f"/runs/{runs[0]}/deliveries")).json()["data"]
    assert [first["data"][0]["id"]] == [one["eventId"] for one in delivered]
    assert ("run.canceled", "production") == (
        first["data"][0]["type"],
        first["data"][0]["environment"],
    )


async def test_the_end_of_the_feed_has_a_cursor_too_and_shows_what_comes_later(
    client: httpx.AsyncClient,
) -> None:
    end = await _feed(client)
    first = await _canceled(client)
    now = await _feed(client, after="now")
    second = await _canceled(client)

    assert ([], False, []) == (end["data"], end["hasMore"], now["data"])
    assert [first, second] == _runs(await _feed(client, after=end["nextCursor"]))
    assert [second] == _runs(await _feed(client, after=now["nextCursor"]))


async def test_an_environment_s_events_are_followed_alone(client: httpx.AsyncClient) -> None:
    await client.post("/environments", json={"name": "staging"})
    here = await _canceled(client)
    there = await _canceled(client, environment="staging")

    assert [here, there] == _runs(await _feed(client))
    assert [there] == _runs(await _feed(client, environment="Staging"))
    unknown = await client.get("/events", params={"environment": "nowhere"})
    assert (422, "unknown_environment", [""]) == problem(unknown)


async def test_a_ping_is_in_the_feed_of_the_whole_workspace(client: httpx.AsyncClient) -> None:
    made = (await client.post("/webhooks", json={"url": "http://127.0.0.1:9/"})).json()
    sent = (await client.post(f"/webhooks/{made['id']}/test")).json()

    (event,) = (await _feed(client))["data"]

    assert (sent["eventId"], "ping", {"webhook": made["id"]}) == (
        event["id"],
        event["type"],
        event["data"],
    )
    assert [] == (await _feed(client, environment="production"))["data"]


async def test_a_limited_key_follows_its_environments_only(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await client.post("/environments", json={"name": "staging"})
    await _canceled(client)
    there = await _canceled(client, environment="staging")
    body = {"name": "x", "scopes": ["runs:read"], "environments": ["staging"]}
    made = await client.post("/keys", json=body)

    async with client_with(deps, made.json()["key"]) as limited:
        seen = await _feed(limited)
        beyond = await limited.get("/events", params={"environment": "production"})

    assert [there] == _runs(seen)
    assert (403, "environment_forbidden", []) == problem(beyond)


async def test_another_workspace_has_a_feed_of_its_own(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await _canceled(client)
    cursor = (await _feed(client))["nextCursor"]
    stranger = await a_tenant(deps)

    async with client_with(deps, stranger.key) as other:
        seen = await _feed(other)
        theirs = await other.get("/events", params={"after": cursor})

    assert [] == seen["data"]
    assert (400, "invalid_cursor", []) == problem(theirs)


async def test_following_takes_the_scope_to_read_runs(deps: Deps, tenant: Tenant) -> None:
    key, _ = await a_key(deps, tenant.workspace_id, ("webhooks:write",))

    async with client_with(deps, key) as other:
        answer = await other.get("/events")

    assert (403, "missing_scope", []) == problem(answer)


async def test_a_cursor_from_before_a_restore_is_a_conflict(
    client: httpx.AsyncClient, tenant: Tenant
) -> None:
    """The restored database has counted fewer transactions, or is another one altogether."""
    cursors = Cursors(tenant.workspace_id, "events")
    place = cursors.position((await _feed(client))["nextCursor"])
    ahead = struct.pack(">Q", 2**60) + place[8:]
    elsewhere = place + b"0"

    answers = [
        await client.get("/events", params={"after": cursors.cursor(one)})
        for one in (ahead, elsewhere)
    ]

    assert [(409, "cursor_reset", [])] * 2 == [problem(answer) for answer in answers]


async def test_a_made_up_cursor_is_a_400(client: httpx.AsyncClient, tenant: Tenant) -> None:
    cursors = Cursors(tenant.workspace_id, "events")

    answers = [
        await client.get("/events", params={"after": cursors.cursor(one)})
        for one in (b"x", b"\xff" * 30)
    ]

    assert [(400, "invalid_cursor", [])] * 2 == [problem(answer) for answer in answers]


@pytest.mark.parametrize(
    "query",
    [
        {"after": "garbage"},
        {"after": ""},
        {"after": "AAAA"},
        {"after": "é"},
        {"after": "x" * 600},
        {"before": "now"},
        {"limit": 0},
        {"limit": 101},
        {"environment": ["production", "production"]},
        {"type": "run.failed"},
    ],
)
async def test_a_query_that_means_nothing_is_a_400(
    client: httpx.AsyncClient, query: dict[str, Any]
) -> None:
    assert 400 == (await client.get("/events", params=query)).status_code


async def test_a_cursor_keeps_to_its_filter(client: httpx.AsyncClient) -> None:
    cursor = (await _feed(client))["nextCursor"]
    filtered = {"after": cursor, "environment": "production"}

    cut = await client.get("/events", params={"after": cursor[:-4]})
    elsewhere = await client.get("/events", params=filtered)
    of_a_list = await client.get("/runs", params={"after": cursor})

    assert (400, "invalid_cursor", []) == problem(cut) == problem(elsewhere) == problem(of_a_list)
