"""Deleting environments: refused while they are in use, or by force, and never by half."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import psycopg
import pytest

from shared.deps import Deps
from shared.ids import RunId
from shared.queue.lanes import Lanes
from shared.settings import Settings
from shared.store import deliveries
from shared.store.claiming import ClaimedRun
from tests.api.clients import client_with, problem
from tests.shared.store.rig import Rig, a_rig, back
from tests.worker.lane_rig import until
from worker.main import WorkerProcess

STAGING = "/environments/staging"
FORCED = f"{STAGING}?force=true"
RUNS = "/prompts/greeting/1/runs"


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


@pytest.fixture(name="client")
async def client_of_the_rig(deps: Deps, rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with client_with(deps, rig.tenant.key) as client:
        await client.post("/environments", json={"name": "staging"})
        yield client


async def _submit(client: httpx.AsyncClient, **fields: object) -> httpx.Response:
    body = {"inputs": {"name": "Ada"}, "environment": "staging", **fields}
    return await client.post(RUNS, json=body)


async def _run(client: httpx.AsyncClient, **fields: object) -> str:
    answer = await _submit(client, **fields)
    assert 200 == answer.status_code, answer.text
    return str(answer.json()["id"])


async def _claimed(client: httpx.AsyncClient, rig: Rig) -> ClaimedRun:
    """A run in the hands of a worker that does not hurry."""
    return await rig.claim(await rig.session(), RunId(UUID(await _run(client))))


async def _close(rig: Rig) -> None:
    """Leave the environment as a forced deletion does whose request dies at once."""
    await rig.run(
        "WITH e AS (UPDATE environments SET deleting_at = now() WHERE name = 'staging'"
        " RETURNING workspace_id) UPDATE workspaces w SET catalog_version = catalog_version + 1"
        " FROM e WHERE w.id = e.workspace_id"
    )


async def test_a_refusal_says_how_many_runs_there_are_and_what_helps(
    client: httpx.AsyncClient, rig: Rig
) -> None:
    waiting = await _run(client)
    running = await _claimed(client, rig)

    refused = await client.delete(STAGING)
    await client.post(f"/runs/{waiting}/cancel")
    await rig.settle(back(running, status="canceled"))
    deleted = await client.delete(STAGING)

    assert (409, "environment_in_use", []) == problem(refused)
    assert "1 runs of this environment wait and 1 run:" in refused.json()["detail"]
    assert "?force=true" in refused.json()["detail"]
    assert 204 == deleted.status_code


async def test_force_cancels_what_waits_and_its_history_stays(
    client: httpx.AsyncClient, rig: Rig
) -> None:
    await client.put(f"{STAGING}/variables/TOKEN", json={"value": "x"})
    ids = [await _run(client, envVars={"A": "b"}) for _ in range(3)]
    other = await _run(client, environment="production")

    deleted = await client.delete(FORCED)

    assert 204 == deleted.status_code
    shown = [(await client.get(f"/runs/{one}")).json() for one in ids]
    assert [("canceled", "staging")] * 3 == [(run["status"], run["environment"]) for run in shown]
    assert "queued" == (await client.get(f"/runs/{other}")).json()["status"]
    assert [] == await rig.rows("SELECT * FROM environment_variables")
    assert [] == await rig.rows("SELECT * FROM runs WHERE env_vars IS NOT NULL")
    assert (422, "unknown_environment") == problem(await _submit(client))[:2]
    assert 404 == (await client.delete(FORCED)).status_code
    audited = (await client.get("/audit", params={"target": "staging"})).json()["data"]
    assert [
        ("environment.deleted", {}),
        ("environment.closed", {"waiting": 3, "running": 0}),
        ("environment.created", {}),
    ] == [(one["action"], one["details"]) for one in audited]


async def test_webhooks_tell_of_the_runs_that_force_canceled_and_of_nothing_else(
    client: httpx.AsyncClient, rig: Rig
) -> None:
    hook = {"url": "http://127.0.0.1:9/hook", "environments": ["staging"]}
    await client.post("/webhooks", json=hook)
    earlier = await _run(client)
    await client.post(f"/runs/{earlier}/cancel")
    late = [await _run(client) for _ in range(2)]

    await client.delete(FORCED)
    found = (await deliveries.claim_due(rig.store, limit=10, lease_s=30)).found

    assert {*late} == {str(due.run_id) for due in found}
    assert ["run.canceled"] * 2 == [due.event_type for due in found]
    assert ["canceled", "pending", "pending"] == sorted(
        row["status"] for row in await rig.deliveries()
    )
    (endpoint,) = (await client.get("/webhooks")).json()["data"]
    assert "environment_deleted" == endpoint["disabledReason"]


async def test_without_force_nothing_more_is_delivered(client: httpx.AsyncClient, rig: Rig) -> None:
    hook = {"url": "http://127.0.0.1:9/hook", "environments": ["staging"]}
    await client.post("/webhooks", json=hook)
    await client.post(f"/runs/{await _run(client)}/cancel")

    await client.delete(STAGING)

    assert () == tuple((await deliveries.claim_due(rig.store, limit=10, lease_s=30)).found)
    assert ["canceled"] == [row["status"] for row in await rig.deliveries()]


async def test_a_run_under_way_is_stopped_and_the_deletion_is_whole(
    client: httpx.AsyncClient, rig: Rig, deps: Deps, lanes: Lanes
) -> None:
    slow = {"model": "sim/hang", "messages": [{"role": "user", "content": "{{ name }}"}]}
    await client.post("/prompts/greeting/versions", json=slow)
    worker = WorkerProcess(deps, lanes)
    await worker.start()
    answer = await client.post(
        "/prompts/greeting/2/runs", json={"inputs": {"name": "Ada"}, "environment": "staging"}
    )
    run_id = answer.json()["id"]

    async def called() -> bool:
        return bool((await client.get(f"/runs/{run_id}")).json()["attempts"])

    await until(called, 20)
    deleted = await client.delete(FORCED)
    run = (await client.get(f"/runs/{run_id}")).json()
    await worker.stop()

    assert (204, "canceled") == (deleted.status_code, run["status"])


@pytest.fixture(name="settings")
def settings_with_little_time(settings: Settings) -> Settings:
    """A request that has to wait gives up early."""
    return settings.model_copy(update={"request_deadline_s": 1})


async def test_what_does_not_stop_in_time_is_told_and_the_next_request_goes_on(
    client: httpx.AsyncClient, rig: Rig
) -> None:
    running = await _claimed(client, rig)
    await _run(client)

    first = await client.delete(FORCED)
    plain = await client.delete(STAGING)
    await rig.settle(back(running))
    again = await client.delete(FORCED)

    assert (409, "environment_in_use", []) == problem(first)
    assert "0 runs of this environment still wait and 1 still run" in first.json()["detail"]
    assert "1" == first.headers["retry-after"]
    assert (409, "environment_in_use", []) == problem(plain)
    assert "canceled" == await rig.status(running.id)
    assert 204 == again.status_code


async def test_a_closed_environment_takes_nothing_new_and_goes_when_asked(
    client: httpx.AsyncClient, rig: Rig
) -> None:
    run_id = await _run(client)
    await _close(rig)

    submitted = await _submit(client)
    replayed = await client.post(f"/runs/{run_id}/replay", json={})
    named = [
        await client.post("/keys", json={"name": "x", "scopes": ["admin"], "environments": [name]})
        for name in ("staging", "unknown")
    ]
    changed = [
        await client.patch(STAGING, json={"isDefault": True}),
        await client.put(f"{STAGING}/variables/TOKEN", json={"value": "x"}),
    ]
    shown = (await client.get(STAGING)).json()
    taken = await client.post("/environments", json={"name": "staging"})
    deleted = await client.delete(FORCED)

    for answer in (submitted, replayed, *named):
        assert (422, "unknown_environment") == problem(answer)[:2]
    assert {(409, "environment_deleting")} == {problem(answer)[:2] for answer in changed}
    assert shown["deletingSince"] is not None
    assert (409, "name_taken", []) == problem(taken)
    assert 204 == deleted.status_code
    assert "canceled" == await rig.status((await rig.rows("SELECT id FROM runs"))[0]["id"])


async def test_a_run_that_is_just_being_stored_is_not_overlooked(
    client: httpx.AsyncClient, rig: Rig, settings: Settings
) -> None:
    await _run(client)
    (row,) = await rig.rows("SELECT * FROM runs")
    await client.post(f"/runs/{row['id']}/cancel")
    copy = (
        "INSERT INTO runs SELECT (jsonb_populate_record(r, jsonb_build_object('id',"
        " gen_random_uuid(), 'status', 'queued', 'finished_at', NULL,"
        " 'cancel_requested_at', NULL))).* FROM runs r"
    )
    url = settings.database_url.get_secret_value()

    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(copy)
        deletion = asyncio.create_task(client.delete(STAGING))
        await rig.blocked()
    refused = await deletion

    assert (409, "environment_in_use", []) == problem(refused)


@pytest.mark.parametrize("force", ["true", "false"])
async def test_the_default_environment_cannot_be_deleted_by_force_either(
    client: httpx.AsyncClient, force: str
) -> None:
    await _submit(client, environment="production")

    refused = await client.delete(f"/environments/production?force={force}")

    assert (409, "default_environment", []) == problem(refused)
    assert 200 == (await _submit(client, environment="production")).status_code


@pytest.mark.parametrize(
    "query", ["force=", "force=yes", "force=1", "force=true&force=true", "x=1"]
)
async def test_a_force_that_is_not_understood_is_refused(
    client: httpx.AsyncClient, query: str
) -> None:
    assert 400 == (await client.delete(f"{STAGING}?{query}")).status_code
    assert 200 == (await client.get(STAGING)).status_code


async def test_a_limited_key_forces_its_own_environments_only(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await client.post("/environments", json={"name": "other"})
    body = {"name": "x", "scopes": ["environments:write"], "environments": ["other"]}
    made = await client.post("/keys", json=body)

    async with client_with(deps, made.json()["key"]) as limited:
        beyond = await limited.delete(FORCED)
        own = await limited.delete("/environments/other?force=true")

    assert (403, "environment_forbidden", []) == problem(beyond)
    assert 204 == own.status_code
