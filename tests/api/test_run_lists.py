"""Lists of runs: filters, pages, the lanes of a workspace, deliveries."""

from typing import Any

import httpx
import pytest

from shared.deps import Deps
from tests.factories import Tenant, a_prompt, a_tenant


async def _submit(client: httpx.AsyncClient, **body: object) -> str:
    response = await client.post(
        "/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}, **body}
    )
    assert response.status_code == 200
    return str(response.json()["id"])


async def _listed(client: httpx.AsyncClient, **query: Any) -> list[str]:
    response = await client.get("/runs", params=query)
    assert response.status_code == 200, response.text
    return [run["id"] for run in response.json()["data"]]


@pytest.fixture(autouse=True)
async def _prompt(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant)


async def test_runs_are_listed_newest_first_in_pages(client: httpx.AsyncClient) -> None:
    ids = [await _submit(client) for _ in range(5)]

    first = (await client.get("/runs", params={"limit": 2})).json()
    second = (await client.get("/runs", params={"limit": 2, "after": first["nextCursor"]})).json()
    third = (await client.get("/runs", params={"limit": 2, "after": second["nextCursor"]})).json()

    pages = [[run["id"] for run in page["data"]] for page in (first, second, third)]
    assert [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]] == pages
    assert (third["hasMore"], third["nextCursor"]) == (False, None)


async def test_filters_are_anded(client: httpx.AsyncClient) -> None:
    plain = await _submit(client)
    low = await _submit(client, priority="low")
    marked = await _submit(client, priority="low", metadata={"user": "42"}, tags=["beta"])
    await client.post(f"/runs/{plain}/cancel")

    assert [marked, low] == await _listed(client, priority="low")
    assert [marked] == await _listed(client, priority="low", **{"metadata[user]": "42"})
    assert [] == await _listed(client, **{"metadata[user]": "43"})
    assert [marked] == await _listed(client, tag="beta")
    assert [plain] == await _listed(client, status="canceled")
    assert [marked, low, plain] == await _listed(client, status=["queued", "canceled"])
    assert [marked, low, plain] == await _listed(client, prompt="greeting", version=1)
    assert [] == await _listed(client, prompt="other")
    assert [] == await _listed(client, environment="staging")
    assert [] == await _listed(client, createdBefore="2020-01-01T00:00:00Z")
    assert [marked, low, plain] == await _listed(client, createdAfter="2020-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "query",
    [
        {"status": "done"},
        {"priority": "urgent"},
        {"version": "one"},
        {"thread": "x"},
        {"createdAfter": "yesterday"},
        {"colour": "red"},
        {"limit": 0},
        {"after": "garbage"},
    ],
)
async def test_filter_that_means_nothing_is_a_400(
    client: httpx.AsyncClient, query: dict[str, Any]
) -> None:
    response = await client.get("/runs", params=query)

    assert response.status_code == 400


async def test_runs_of_another_workspace_are_not_listed(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    other = await a_tenant(deps)
    await a_prompt(deps, other)
    await client.post(
        "/prompts/greeting/1/runs",
        json={"inputs": {"name": "Ada"}},
        headers={"Authorization": f"Bearer {other.key}"},
    )

    assert [] == await _listed(client)


async def test_the_lanes_are_counted_for_the_workspace(client: httpx.AsyncClient) -> None:
    await _submit(client, priority="low")
    await _submit(client, priority="low")

    lanes = (await client.get("/queue")).json()

    assert (lanes["low"]["waiting"], lanes["low"]["running"]) == (2, 0)
    assert lanes["low"]["oldest"] is not None
    assert {"waiting": 0, "running": 0, "oldest": None, "paused": False} == lanes["onsite"]


async def test_deliveries_of_a_run_say_where_its_event_went(client: httpx.AsyncClient) -> None:
    await client.post("/webhooks", json={"url": "http://127.0.0.1:9/hook"})
    run_id = await _submit(client)
    await client.post(f"/runs/{run_id}/cancel")

    (delivery,) = (await client.get(f"/runs/{run_id}/deliveries")).json()["data"]

    assert ("run.canceled", "pending", 0, []) == (
        delivery["type"],
        delivery["status"],
        delivery["tries"],
        delivery["attempts"],
    )
