"""Drafts that are replaced, and versions that are deleted, as a client of the API sees it."""

import asyncio
from typing import Any

import httpx
import pytest

from shared.deps import Deps
from shared.store import prompts, workspaces
from tests.api.clients import problem
from tests.factories import Tenant, a_prompt
from tests.shared.store.rig import blocked

BODY: dict[str, Any] = {"model": "sim/echo", "messages": [{"role": "user", "content": "Bye"}]}
INPUTS = {"inputs": {"name": "Ada"}}


@pytest.fixture(autouse=True)
async def greeting(deps: Deps, tenant: Tenant, client: httpx.AsyncClient) -> None:
    """The prompt `greeting` with version 1 published and version 2 a draft."""
    await a_prompt(deps, tenant)
    await client.post("/prompts/greeting/versions", json={**BODY, "publish": False})


async def _statuses(client: httpx.AsyncClient, number: int) -> list[int]:
    """How a version answers through the prompts door, as a whole, and for a run."""
    answers = (
        await client.get(f"/prompts/greeting/{number}"),
        await client.get(f"/prompts/greeting/versions/{number}"),
        await client.post(f"/prompts/greeting/{number}/runs", json=INPUTS),
    )
    return [answer.status_code for answer in answers]


async def test_draft_is_replaced_whole_and_stays_a_draft(client: httpx.AsyncClient) -> None:
    before = (await client.get("/prompts/greeting/versions/2")).json()
    body = {
        "templates": {
            "main": {**BODY, "messages": [{"role": "user", "content": "{{ a b }} {{ sign }}"}]},
            "sign": {"text": "Yours"},
        }
    }

    replaced = await client.put("/prompts/greeting/versions/2", json=body)
    read = (await client.get("/prompts/greeting/versions/2")).json()

    assert (200, read) == (replaced.status_code, replaced.json())
    assert {"main", "sign"} == read["body"]["templates"].keys()
    assert 1 == len(read["warnings"])
    for name in ("id", "number", "published", "createdAt", "publishedAt"):
        assert before[name] == read[name]


async def test_replaced_draft_runs_as_it_was_when_published(client: httpx.AsyncClient) -> None:
    await client.put(
        "/prompts/greeting/versions/2",
        json={**BODY, "messages": [{"role": "user", "content": "Hi {{ name }}"}]},
    )
    await client.post("/prompts/greeting/versions/2/publish")

    revision = (await client.get("/prompts/greeting/__latest__")).json()

    assert ("Hi {{ name }}", ["name"]) == (revision["messages"][0]["content"], revision["inputs"])


@pytest.mark.parametrize("number", [1, 2])
async def test_published_version_never_changes(client: httpx.AsyncClient, number: int) -> None:
    await client.post("/prompts/greeting/versions/2/publish")
    before = (await client.get(f"/prompts/greeting/versions/{number}")).json()

    response = await client.put(f"/prompts/greeting/versions/{number}", json=BODY)

    assert (409, "version_published", []) == problem(response)
    assert before == (await client.get(f"/prompts/greeting/versions/{number}")).json()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/messages"),
        ({**BODY, "publish": True}, "/publish"),
        ({**BODY, "number": 2}, "/number"),
        ({"body": BODY}, "/body"),
        ({**BODY, "messages": [{"role": "user", "content": "a\u0000"}]}, "/messages/0/content"),
        ({"templates": {"main": {"text": "x"}}}, "/templates/main/text"),
    ],
)
async def test_unacceptable_body_leaves_the_draft_as_it_was(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    before = (await client.get("/prompts/greeting/versions/2")).json()

    status, _, pointers = problem(await client.put("/prompts/greeting/versions/2", json=body))

    assert 422 == status
    assert pointer in pointers
    assert before == (await client.get("/prompts/greeting/versions/2")).json()


async def test_draft_posted_back_as_it_was_read_is_refused(client: httpx.AsyncClient) -> None:
    whole = (await client.get("/prompts/greeting/versions/2")).json()

    response = await client.put("/prompts/greeting/versions/2", json=whole)

    assert (422, "invalid") == problem(response)[:2]


async def test_large_template_fits_into_a_draft_as_into_a_new_version(
    client: httpx.AsyncClient,
) -> None:
    content = "x" * (256 * 1024)
    body = {**BODY, "messages": [{"role": "user", "content": content}]}

    fits = await client.put("/prompts/greeting/versions/2", json=body)
    body["messages"][0]["content"] += "x"
    too_much = await client.put("/prompts/greeting/versions/2", json=body)

    assert [200, 422] == [fits.status_code, too_much.status_code]


@pytest.mark.parametrize(
    "number", ["0", "-1", "3", "01", "production", "__latest__", "1.0", "99999999999"]
)
async def test_unknown_number_is_not_found(client: httpx.AsyncClient, number: str) -> None:
    answers = [
        await client.get(f"/prompts/greeting/versions/{number}"),
        await client.put(f"/prompts/greeting/versions/{number}", json=BODY),
        await client.delete(f"/prompts/greeting/versions/{number}"),
    ]

    assert [404, 404, 404] == [answer.status_code for answer in answers]


@pytest.mark.parametrize("number", [1, 2])
async def test_unused_version_is_deleted_once_and_its_number_stays_taken(
    client: httpx.AsyncClient, number: int
) -> None:
    first = await client.delete(f"/prompts/greeting/versions/{number}")
    second = await client.delete(f"/prompts/greeting/versions/{number}")
    added = await client.post("/prompts/greeting/versions", json=BODY)

    assert [204, 404] == [first.status_code, second.status_code]
    assert 3 == added.json()["number"]
    assert [404, 404, 404] == await _statuses(client, number)


async def test_latest_is_what_is_left_after_a_version_is_deleted(client: httpx.AsyncClient) -> None:
    await client.post("/prompts/greeting/versions/2/publish")
    assert 200 == (await client.get("/prompts/greeting/__latest__")).status_code

    await client.delete("/prompts/greeting/versions/2")

    assert 1 == (await client.get("/prompts/greeting/__latest__")).json()["number"]
    run = await client.post("/prompts/greeting/__latest__/runs", json=INPUTS)
    assert 1 == (await client.get(f"/runs/{run.json()['id']}")).json()["prompt"]["version"]


async def test_version_that_a_tag_points_at_stays_until_the_tag_has_moved(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/prompts/greeting/versions", json=BODY)
    for tag in ("production", "canary"):
        await client.put(f"/prompts/greeting/tags/{tag}", json={"version": 1})

    refused = await client.delete("/prompts/greeting/versions/1")
    for tag in ("production", "canary"):
        await client.put(f"/prompts/greeting/tags/{tag}", json={"version": 3})
    deleted = await client.delete("/prompts/greeting/versions/1")

    assert (409, "version_in_use", []) == problem(refused)
    assert "canary, production" in refused.json()["detail"]
    assert 204 == deleted.status_code
    history = (await client.get("/prompts/greeting/tags/canary/history")).json()["data"]
    assert [(1, 3), (None, 1)] == [(move["from"], move["to"]) for move in history]


async def test_version_that_runs_were_made_of_stays_and_so_do_they(
    client: httpx.AsyncClient,
) -> None:
    run = await client.post("/prompts/greeting/1/runs", json=INPUTS)
    path = f"/runs/{run.json()['id']}"

    waiting = await client.delete("/prompts/greeting/versions/1")
    await client.post(f"{path}/cancel")
    over = await client.delete("/prompts/greeting/versions/1")

    assert [(409, "version_in_use", [])] * 2 == [problem(waiting), problem(over)]
    read = (await client.get(path)).json()
    assert ("canceled", 1) == (read["status"], read["prompt"]["version"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/prompts/greeting/1/runs", INPUTS),
        ("/runs/batch", {"runs": [{"prompt": "greeting", "version": "1", **INPUTS}] * 2}),
    ],
)
async def test_run_submitted_while_its_version_is_deleted_is_refused(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, path: str, body: dict[str, Any]
) -> None:
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, tenant.workspace_id)
        prompt = await prompts.find(tx, tenant.workspace_id, "greeting")
        assert prompt is not None
        version = await prompts.find_version(tx, prompt.id, 1)
        assert version is not None
        await prompts.remove_version(tx, version)
        submitted = asyncio.create_task(client.post(path, json=body))
        await blocked(deps.store)
    answer = await submitted

    assert answer.status_code in {404, 422}
    assert [] == (await client.get("/runs")).json()["data"]


async def test_version_is_deleted_or_run_never_both(client: httpx.AsyncClient) -> None:
    for number in range(3, 13):
        await client.post("/prompts/greeting/versions", json=BODY)

        runs, deleted = await asyncio.gather(
            asyncio.gather(
                *(client.post(f"/prompts/greeting/{number}/runs", json=INPUTS) for _ in range(3))
            ),
            client.delete(f"/prompts/greeting/versions/{number}"),
        )

        statuses = {run.status_code for run in runs}
        if deleted.status_code == 204:
            assert {404} == statuses
        else:
            assert 409 == deleted.status_code
            assert {200} == statuses
