"""`ETag` and `If-Match`: nobody overwrites what they have not seen."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from shared.deps import Deps
from tests.api.clients import client_with, problem
from tests.factories import Tenant, a_key, a_prompt

BODY: dict[str, Any] = {"model": "sim/echo", "messages": [{"role": "user", "content": "Bye"}]}
STALE = '"000000000000000000000000"'

# What is read, and a change of it that each time makes another state.
CHANGES = [
    ("/prompts/greeting", "PATCH", "/prompts/greeting", {"name": "Salute"}),
    ("/prompts/greeting", "DELETE", "/prompts/greeting", None),
    ("/prompts/greeting/tags/prod", "PUT", "/prompts/greeting/tags/prod", {"version": 2}),
    ("/prompts/greeting/tags/prod", "DELETE", "/prompts/greeting/tags/prod", None),
    ("/prompts/greeting/versions/3", "PUT", "/prompts/greeting/versions/3", BODY),
    ("/prompts/greeting/versions/3", "DELETE", "/prompts/greeting/versions/3", None),
    ("/prompts/greeting/versions/3", "POST", "/prompts/greeting/versions/3/publish", None),
    ("/environments/staging", "PATCH", "/environments/staging", {"name": "Staging"}),
    ("/webhooks/{webhook}", "PATCH", "/webhooks/{webhook}", {"description": "mine"}),
]


@pytest.fixture(autouse=True)
async def webhook(deps: Deps, tenant: Tenant, client: httpx.AsyncClient) -> str:
    """The id of a webhook; beside it a prompt with versions and a tag, and an environment."""
    await a_prompt(deps, tenant)
    await client.post("/prompts/greeting/versions", json=BODY)
    await client.post(
        "/prompts/greeting/versions", json={**BODY, "model": "sim/a", "publish": False}
    )
    await client.put("/prompts/greeting/tags/prod", json={"version": 1})
    await client.post("/environments", json={"name": "staging"})
    made = await client.post("/webhooks", json={"url": "http://127.0.0.1:9/hook"})
    return str(made.json()["id"])


@pytest.mark.parametrize(("seen", "method", "path", "body"), CHANGES)
async def test_change_is_made_only_to_the_state_its_caller_has_seen(
    client: httpx.AsyncClient, webhook: str, seen: str, method: str, path: str, body: Any
) -> None:
    seen, path = seen.format(webhook=webhook), path.format(webhook=webhook)
    before = await client.get(seen)
    etag = before.headers["etag"]

    stale = await client.request(method, path, json=body, headers={"If-Match": STALE})
    weak = await client.request(method, path, json=body, headers={"If-Match": f"W/{etag}"})
    unchanged = await client.get(seen)
    made = await client.request(
        method, path, json=body, headers={"If-Match": f"{STALE}, {etag} , W/{STALE}"}
    )

    assert [(412, "precondition_failed", [])] * 2 == [problem(stale), problem(weak)]
    assert (before.content, etag) == (unchanged.content, unchanged.headers["etag"])
    assert made.status_code in {200, 204}
    if body is not None and "etag" in made.headers:
        assert etag != made.headers["etag"]


@pytest.mark.parametrize(("seen", "method", "path", "body"), CHANGES)
async def test_two_changes_of_the_same_state_at_once_make_one_and_refuse_one(
    client: httpx.AsyncClient, webhook: str, seen: str, method: str, path: str, body: Any
) -> None:
    etag = (await client.get(seen.format(webhook=webhook))).headers["etag"]

    answers = await asyncio.gather(
        *(
            client.request(
                method, path.format(webhook=webhook), json=body, headers={"If-Match": etag}
            )
            for _ in range(5)
        )
    )

    done = 204 if method == "DELETE" else 200
    late = 404 if method == "DELETE" else 412
    assert {done: 1, late: 4} == Counter(answer.status_code for answer in answers)


@pytest.mark.parametrize(("seen", "method", "path", "body"), CHANGES)
async def test_star_matches_whatever_is_there(
    client: httpx.AsyncClient, webhook: str, seen: str, method: str, path: str, body: Any
) -> None:
    assert (await client.get(seen.format(webhook=webhook))).headers["etag"]

    made = await client.request(
        method, path.format(webhook=webhook), json=body, headers={"If-Match": "*"}
    )

    assert made.status_code in {200, 204}


@pytest.mark.parametrize(
    "value", ["", "abc", '"abc', 'abc"', '"a" "b"', '"a",', ', "a"', '*, "a"', 'w/"a"', '"a b"']
)
async def test_if_match_that_is_no_list_of_tags_is_refused(
    client: httpx.AsyncClient, value: str
) -> None:
    response = await client.patch(
        "/prompts/greeting", json={"name": "other"}, headers={"If-Match": value}
    )

    assert (400, "bad_request", []) == problem(response)
    assert "greeting" == (await client.get("/prompts/greeting")).json()["name"]


async def test_long_if_match_is_judged_at_once(client: httpx.AsyncClient) -> None:
    value = '"a", ' * 2_500 + '"'

    response = await client.patch(
        "/prompts/greeting", json={"name": "other"}, headers={"If-Match": value}
    )

    assert 400 == response.status_code


@pytest.mark.parametrize("value", ["*", STALE])
async def test_tag_that_is_not_there_yet_matches_nothing(
    client: httpx.AsyncClient, value: str
) -> None:
    response = await client.put(
        "/prompts/greeting/tags/new", json={"version": 1}, headers={"If-Match": value}
    )

    assert (412, "precondition_failed", []) == problem(response)
    assert 404 == (await client.get("/prompts/greeting/tags/new")).status_code


async def test_tag_moved_away_and_back_is_not_the_state_that_was_seen(
    client: httpx.AsyncClient,
) -> None:
    etag = (await client.get("/prompts/greeting/tags/prod")).headers["etag"]
    for number in (2, 1):
        await client.put("/prompts/greeting/tags/prod", json={"version": number})

    response = await client.put(
        "/prompts/greeting/tags/prod", json={"version": 2}, headers={"If-Match": etag}
    )

    assert 412 == response.status_code


async def test_setting_a_tag_to_where_it_points_leaves_its_state(client: httpx.AsyncClient) -> None:
    before = await client.get("/prompts/greeting/tags/prod")

    same = await client.put("/prompts/greeting/tags/prod", json={"version": 1})

    assert (before.content, before.headers["etag"]) == (same.content, same.headers["etag"])


async def test_answer_to_a_change_names_the_state_it_made(client: httpx.AsyncClient) -> None:
    changed = await client.patch("/prompts/greeting", json={"name": "Salute"})
    read = await client.get("/prompts/greeting")

    assert changed.headers["etag"] == read.headers["etag"]
    assert changed.content == read.content


async def test_who_may_not_change_is_told_so_before_anything_about_if_match(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    key, _ = await a_key(deps, tenant.workspace_id, ("prompts:read",))

    async with client_with(deps, key) as reader:
        forbidden = await reader.patch(
            "/prompts/greeting", json={"name": "x"}, headers={"If-Match": "abc"}
        )
    async with client_with(deps, "rl_none") as nobody:
        unauthorized = await nobody.patch(
            "/prompts/greeting", json={"name": "x"}, headers={"If-Match": "abc"}
        )

    assert [403, 401] == [forbidden.status_code, unauthorized.status_code]
