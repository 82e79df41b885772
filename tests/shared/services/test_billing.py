"""Credits: given by the operator, kept in a ledger that nobody can change, shown truncated."""

from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest

from shared.deps import Deps
from shared.domain import credits as rules
from shared.domain.submissions import Submission
from shared.errors import CreditsExhaustedError, NotFoundError, UnacceptableError
from shared.ids import WorkspaceId, new_id
from shared.services import billing, submissions
from shared.services.submissions import Request
from tests.factories import Tenant, a_prompt

BODY = {"inputs": {"name": "Ada"}}
CAPS = "SELECT max_nanousd FROM runs"

LINES = "SELECT kind, amount_nanousd, comment, created_at FROM ledger ORDER BY id"
SUMS = """
SELECT a.balance_nanousd, (SELECT sum(amount_nanousd)::bigint FROM ledger) FROM accounts a
"""


async def test_a_workspace_that_nobody_meters_has_no_balance(deps: Deps, tenant: Tenant) -> None:
    shown = await billing.show(deps, tenant.workspace_id)

    assert (None, 0, None) == (
        shown.credits_left,
        shown.credits_held,
        shown.max_request_cost_credits,
    )


async def test_grants_add_up_to_what_is_left(deps: Deps, tenant: Tenant) -> None:
    await billing.meter(deps, tenant.workspace_id, metered=True)
    await billing.grant(deps, tenant.workspace_id, 5_000_000, "an invoice")
    left = await billing.grant(deps, tenant.workspace_id, -1, "put right")

    lines: list[tuple[Any, ...]] = list(await deps.store.fetch(LINES, {}))
    assert 4_999_999 == left == (await billing.show(deps, tenant.workspace_id)).credits_left
    assert [("grant", 5_000_000_000, "an invoice"), ("grant", -1_000, "put right")] == [
        line[:3] for line in lines
    ]
    assert all(isinstance(line[3], datetime) for line in lines)
    assert [(4_999_999_000, 4_999_999_000)] == list(await deps.store.fetch(SUMS, {}))


async def test_a_workspace_that_is_metered_no_more_keeps_what_it_had(
    deps: Deps, tenant: Tenant
) -> None:
    await billing.meter(deps, tenant.workspace_id, metered=True)
    await billing.grant(deps, tenant.workspace_id, 7, "a present")

    await billing.meter(deps, tenant.workspace_id, metered=False)
    between = (await billing.show(deps, tenant.workspace_id)).credits_left
    await billing.meter(deps, tenant.workspace_id, metered=True)

    assert (None, 7) == (between, (await billing.show(deps, tenant.workspace_id)).credits_left)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE ledger SET amount_nanousd = 1", "DELETE FROM ledger", "TRUNCATE ledger"],
)
async def test_a_line_of_the_ledger_is_never_changed(
    statement: str, deps: Deps, tenant: Tenant
) -> None:
    await billing.grant(deps, tenant.workspace_id, 5, "for tests")

    with pytest.raises(psycopg.IntegrityError, match="never changed"):
        await deps.store.execute(statement, {})


@pytest.mark.parametrize(
    ("amount", "comment"), [(0, "nothing"), (10**15 + 1, "too much"), (1, ""), (1, "x" * 1_001)]
)
async def test_a_grant_says_how_much_and_what_for(
    amount: int, comment: str, deps: Deps, tenant: Tenant
) -> None:
    with pytest.raises(UnacceptableError):
        await billing.grant(deps, tenant.workspace_id, amount, comment)

    assert [] == list(await deps.store.fetch(LINES, {}))


async def test_nobody_is_given_anything_under_an_unknown_id(deps: Deps, tenant: Tenant) -> None:
    with pytest.raises(NotFoundError):
        await billing.grant(deps, WorkspaceId(new_id()), 1, "a mistake")
    with pytest.raises(NotFoundError):
        await billing.show(deps, WorkspaceId(tenant.environment_id))


@pytest.mark.parametrize(
    ("nanousd", "shown"), [(0, 0), (999, 0), (14_880, 14), (-999, 0), (-14_880, -14)]
)
def test_credits_are_truncated(nanousd: int, shown: int) -> None:
    assert shown == rules.credits_of(nanousd)


async def test_nothing_is_taken_where_nothing_is_left_to_spend(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    runs = "/prompts/greeting/1/runs"
    first = await client.post(runs, json=BODY, headers={"Idempotency-Key": "one"})

    await billing.meter(deps, tenant.workspace_id, metered=True)
    refused = await client.post(runs, json=BODY)
    repeated = await client.post(runs, json=BODY, headers={"Idempotency-Key": "one"})
    batch = await client.post(
        "/runs/batch", json={"runs": [{"prompt": "greeting", "version": "1"} | BODY]}
    )
    await billing.grant(deps, tenant.workspace_id, 1, "the last one")
    accepted = await client.post(runs, json=BODY)

    assert (403, "quota_exceeded") == (refused.status_code, refused.json()["code"])
    assert (403, "quota_exceeded") == (batch.status_code, batch.json()["code"])
    assert (first.json()["id"], 200) == (repeated.json()["id"], accepted.status_code)


async def test_the_flows_door_says_402(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant)
    await billing.meter(deps, tenant.workspace_id, metered=True)
    asked = Request(
        slug="greeting",
        version="1",
        body=Submission(inputs={"name": "Ada"}),
        ends_at=float("inf"),
        says_402=True,
    )

    with pytest.raises(CreditsExhaustedError) as refused:
        await submissions.submit(deps, tenant.principal, asked)

    assert (402, "credits_exhausted") == (refused.value.status, refused.value.code)


async def test_a_replay_may_cost_no_more_than_its_run(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    made = await client.post("/prompts/greeting/1/runs", json=BODY | {"maxRequestCostCredits": 7})

    await client.post(f"/runs/{made.json()['id']}/replay", json={})

    assert [(7_000,), (7_000,)] == list(await deps.store.fetch(CAPS, {}))
