"""Budgets as they are set and shown, credits, and usage over HTTP."""

import httpx
import pytest

from shared.deps import Deps
from shared.services import billing
from tests.api.clients import client_with
from tests.factories import Tenant, a_key, a_prompt

PRODUCTION = "/budgets/environments/production"


async def test_a_budget_is_set_shown_changed_and_deleted(client: httpx.AsyncClient) -> None:
    made = await client.put(PRODUCTION, json={"day": 5, "month": 100})
    changed = await client.put(PRODUCTION, json={"day": 7})
    listed = await client.get("/budgets")
    deleted = await client.delete(PRODUCTION)
    again = await client.delete(PRODUCTION)

    assert [5, 100] == [made.json()[period]["limitCredits"] for period in ("day", "month")]
    assert (7, None) == (changed.json()["day"]["limitCredits"], changed.json()["month"])
    (shown,) = listed.json()["data"]
    assert ("production", None, "day", 7, 0, 0) == tuple(
        shown[name]
        for name in (
            "environment",
            "keyId",
            "period",
            "limitCredits",
            "spentCredits",
            "heldCredits",
        )
    )
    assert [204, 404] == [deleted.status_code, again.status_code]


async def test_a_key_has_a_budget_of_its_own(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    poor, key_id = await a_key(deps, tenant.workspace_id)
    await client.put(f"/budgets/keys/{key_id}", json={"month": 0})
    run = {"inputs": {"name": "Ada"}}

    async with client_with(deps, poor) as poors:
        refused = await poors.post("/prompts/greeting/1/runs", json=run)
    accepted = await client.post("/prompts/greeting/1/runs", json=run)

    assert (403, "quota_exceeded") == (refused.status_code, refused.json()["code"])
    assert 200 == accepted.status_code


@pytest.mark.parametrize("body", [{"day": -1}, {"day": 10**15 + 1}, {"week": 1}, {"day": "5"}])
async def test_a_budget_is_a_number_of_credits(
    body: dict[str, object], client: httpx.AsyncClient
) -> None:
    assert 422 == (await client.put(PRODUCTION, json=body)).status_code


async def test_credits_are_null_until_the_workspace_is_metered(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    before = await client.get("/credits")
    await billing.meter(deps, tenant.workspace_id, metered=True)
    await billing.grant(deps, tenant.workspace_id, 12, "for the test")
    after = await client.get("/credits")

    assert [None, 12] == [one.json()["creditsLeft"] for one in (before, after)]


@pytest.mark.parametrize(
    "query",
    [
        "groupBy=week",
        "from=yesterday",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "from=2024-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
    ],
)
async def test_usage_of_no_time_is_refused(query: str, client: httpx.AsyncClient) -> None:
    assert 400 == (await client.get(f"/usage?{query}")).status_code
