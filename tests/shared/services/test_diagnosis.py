"""The doctor finds what is wrong, repairs it, and then finds nothing."""

import httpx
import pytest

from shared.deps import Deps
from shared.ids import SessionId, new_id
from shared.queue.lanes import Lanes
from shared.services import billing, diagnosis
from shared.services.findings import Verdict
from shared.store import claiming, sessions
from tests.factories import Tenant, a_prompt

BOOKS = "books"
A_BUDGET = """
INSERT INTO budgets (id, workspace_id, environment_id, period, limit_nanousd, period_from)
SELECT %(id)s, workspace_id, id, 'day', 1, now() FROM environments LIMIT 1
"""


@pytest.fixture(autouse=True)
async def _prompt(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant)


async def _verdicts(deps: Deps, lanes: Lanes, *, fix: bool = False) -> dict[str, Verdict]:
    findings = await diagnosis.examine(deps, lanes, fix=fix)
    return {finding.check: finding.verdict for finding in findings}


async def _submit(client: httpx.AsyncClient) -> str:
    response = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})
    return str(response.json()["id"])


async def test_all_is_well_but_for_the_missing_worker(deps: Deps, lanes: Lanes) -> None:
    verdicts = await _verdicts(deps, lanes)

    assert Verdict.BAD == verdicts.pop("workers")
    assert Verdict.WARNING == verdicts.pop("redis")  # the tests' Valkey keeps nothing
    assert {Verdict.GOOD} == set(verdicts.values())


async def test_runs_that_are_not_rung_are_found_and_rung(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes
) -> None:
    await _submit(client)
    await lanes.flushall()

    found = await _verdicts(deps, lanes)
    repaired = await _verdicts(deps, lanes, fix=True)
    after = await _verdicts(deps, lanes)

    assert [Verdict.BAD, Verdict.REPAIRED, Verdict.GOOD] == [
        verdicts["waiting runs"] for verdicts in (found, repaired, after)
    ]
    assert 1 == sum((await lanes.waiting()).values())


async def test_runs_of_a_dead_worker_are_found(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes
) -> None:
    run_id = await _submit(client)
    session = SessionId(new_id())
    await sessions.open_session(deps.store, session, host="h", pid=1, lease_s=0.001)
    (row,) = await deps.store.fetch("SELECT id FROM runs", {})
    assert run_id == str(row[0])
    await claiming.claim(deps.store, session, [row[0]])

    verdicts = await _verdicts(deps, lanes)

    assert Verdict.BAD == verdicts["running runs"]


async def test_ended_runs_without_their_event_get_it(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes
) -> None:
    run_id = await _submit(client)
    await client.post(f"/runs/{run_id}/cancel")
    await deps.store.execute("DELETE FROM events", {})

    found = await _verdicts(deps, lanes)
    repaired = await _verdicts(deps, lanes, fix=True)

    assert (Verdict.BAD, Verdict.REPAIRED) == (found["events"], repaired["events"])
    assert [("run.canceled",)] == await deps.store.fetch("SELECT type FROM events", {})


async def test_events_restored_from_a_server_with_a_longer_past_come_back_into_the_feed(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes
) -> None:
    run_ids = [await _submit(client) for _ in range(3)]
    for run_id in run_ids:
        await client.post(f"/runs/{run_id}/cancel")
    await deps.store.execute("UPDATE events SET tx = '4000000000'", {})

    hidden = (await client.get("/events")).json()["data"]
    found = await _verdicts(deps, lanes)
    repaired = await _verdicts(deps, lanes, fix=True)
    after = await _verdicts(deps, lanes)
    shown = (await client.get("/events")).json()["data"]

    assert [] == hidden
    assert [Verdict.BAD, Verdict.REPAIRED, Verdict.GOOD] == [
        verdicts["feed"] for verdicts in (found, repaired, after)
    ]
    assert run_ids == [event["data"]["run"]["id"] for event in shown]


@pytest.mark.parametrize(
    ("meddling", "told"),
    [
        ("UPDATE accounts SET balance_nanousd = balance_nanousd + 1", "1 balances"),
        ("UPDATE accounts SET held_nanousd = held_nanousd + 1", "1 accounts"),
        ("UPDATE budgets SET held_nanousd = held_nanousd + 1", "1 budgets"),
    ],
)
async def test_books_that_do_not_add_up_are_found(
    deps: Deps, lanes: Lanes, tenant: Tenant, meddling: str, told: str
) -> None:
    await billing.meter(deps, tenant.workspace_id, metered=True)
    await billing.grant(deps, tenant.workspace_id, 5, "an invoice")
    await deps.store.execute(A_BUDGET, {"id": new_id()})
    before = await _verdicts(deps, lanes)

    await deps.store.execute(meddling, {})
    (books,) = [one for one in await diagnosis.examine(deps, lanes, fix=True) if one.check == BOOKS]

    assert Verdict.GOOD == before[BOOKS]
    assert Verdict.BAD == books.verdict
    assert books.detail.startswith(told)
