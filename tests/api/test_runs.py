"""Submitting and reading runs, as a client of the prompts door sees it."""

from datetime import timedelta

import httpx
import pytest

from shared.clock import rfc3339
from shared.deps import Deps
from shared.ids import new_id
from tests.factories import Tenant, a_prompt
from tests.worker.lane_rig import until
from worker.main import WorkerProcess


async def test_submission_answers_200_with_id_thread_and_location(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)

    response = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})

    assert response.status_code == 200
    body = response.json()
    assert {"id", "thread"} <= body.keys()
    assert f"/api/v1/runs/{body['id']}" == response.headers["location"]


async def test_batch_stores_all_runs_and_answers_in_order(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    item = {"prompt": "greeting", "version": 1, "inputs": {"name": "Ada"}}

    response = await client.post("/runs/batch", json={"runs": [item] * 20})

    assert response.status_code == 200
    ids = [run["id"] for run in response.json()["runs"]]
    assert len(set(ids)) == 20
    assert sorted(ids) == ids
    for run_id in ids:
        assert (await client.get(f"/runs/{run_id}")).status_code == 200


async def test_batch_with_one_bad_item_stores_nothing_and_names_it(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    good = {"prompt": "greeting", "version": 1, "inputs": {"name": "Ada"}}
    bad = {"prompt": "greeting", "version": 1, "inputs": {}}

    response = await client.post("/runs/batch", json={"runs": [good, bad]})

    assert response.status_code == 422
    assert response.json()["code"] == "missing_inputs"
    assert response.json()["errors"][0]["pointer"] == "/runs/1/inputs/name"
    assert [(0,)] == await deps.store.fetch("SELECT count(*) FROM runs", {})


async def test_batch_mixes_replays_with_new_runs(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    body = {"inputs": {"name": "Ada"}}
    single = await client.post(
        "/prompts/greeting/1/runs", json=body, headers={"Idempotency-Key": "one"}
    )
    items = [
        {"prompt": "greeting", "version": "1", **body, "idempotencyKey": "one"},
        {"prompt": "greeting", "version": "1", **body, "idempotencyKey": "two"},
    ]

    first = await client.post("/runs/batch", json={"runs": items})
    second = await client.post("/runs/batch", json={"runs": items})

    assert first.json()["runs"][0]["id"] == single.json()["id"]
    assert first.json()["runs"] == second.json()["runs"]
    assert [(2,)] == await deps.store.fetch("SELECT count(*) FROM runs", {})


async def test_batch_repeated_after_a_deadline_is_answered_as_at_first(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    soon = deps.clock.now() + timedelta(seconds=0.3)
    item = {"prompt": "greeting", "version": "1", "inputs": {"name": "Ada"}}
    batch = {"runs": [{**item, "idempotencyKey": "one", "deadline": rfc3339(soon)}]}
    first = await client.post("/runs/batch", json=batch)
    await until(lambda: deps.clock.now() > soon)

    again = await client.post("/runs/batch", json=batch)

    assert (200, first.json()["runs"][0]["id"]) == (
        again.status_code,
        again.json()["runs"][0]["id"],
    )


async def test_key_that_stands_twice_in_a_batch_is_refused(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    item = {"prompt": "greeting", "version": 1, "inputs": {"name": "A"}, "idempotencyKey": "k"}

    response = await client.post("/runs/batch", json={"runs": [item, item]})

    assert response.status_code == 422
    assert [(0,)] == await deps.store.fetch("SELECT count(*) FROM runs", {})


async def test_cancelling_a_waiting_run_ends_it_at_once(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    run = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})

    first = await client.post(f"/runs/{run.json()['id']}/cancel")
    second = await client.post(f"/runs/{run.json()['id']}/cancel")

    assert (first.status_code, first.json()["status"]) == (200, "canceled")
    assert (second.status_code, second.json()) == (200, first.json())


async def test_reading_with_wait_answers_once_the_run_is_over(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    await a_prompt(deps, tenant)
    run = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})

    response = await client.get(f"/runs/{run.json()['id']}", params={"wait": 20})

    assert response.json()["status"] == "succeeded"


async def test_submission_that_prefers_to_wait_holds_the_finished_run(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    await a_prompt(deps, tenant)

    response = await client.post(
        "/prompts/greeting/1/runs",
        json={"inputs": {"name": "Ada"}},
        headers={"Prefer": "respond-async, wait=20"},
    )

    assert response.headers["preference-applied"] == "wait=20"
    assert response.json()["status"] == "succeeded"
    assert response.json()["promptRun"]["status"] == "completed"
    assert response.json()["promptRun"]["output"] == "You said: Hello Ada"


async def test_wait_ends_with_its_time_when_the_run_does_not(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    run = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})

    response = await client.get(f"/runs/{run.json()['id']}", params={"wait": 1})

    assert response.json()["status"] == "queued"


@pytest.mark.parametrize("wait", ["61", "-1", "abc", "", "1.5"])
async def test_wait_that_makes_no_sense_is_a_400(client: httpx.AsyncClient, wait: str) -> None:
    response = await client.get(f"/runs/{new_id()}", params={"wait": wait})

    assert response.status_code == 400


async def test_unchanged_run_answers_304_to_whoever_names_its_etag(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    run = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})
    address = f"/runs/{run.json()['id']}"
    etag = (await client.get(address)).headers["etag"]
    inner = etag.strip('"')
    named = [etag, f"W/{etag}", f'"other" , {etag}', "*"]
    others = [f'"{inner[1:]}"', f'"x{inner}"', f'"{inner}W/"', '""', "", inner, "*, *"]

    answers = {
        value: await client.get(address, headers={"If-None-Match": value})
        for value in (*named, *others)
    }
    await client.post(f"{address}/cancel")
    changed = await client.get(address, headers={"If-None-Match": etag})

    assert {
        **dict.fromkeys(named, 304),
        **dict.fromkeys(others[:4], 200),
        **dict.fromkeys(others[4:], 400),
    } == {value: answer.status_code for value, answer in answers.items()}
    assert [(b"", etag)] * 4 == [
        (answers[value].content, answers[value].headers["etag"]) for value in named
    ]
    assert changed.status_code == 200


async def test_replay_is_a_new_run_of_the_same_version_that_says_where_it_comes_from(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    wanted = {"inputs": {"name": "Ada"}, "metadata": {"user": "42"}, "priority": "low"}
    old = (await client.post("/prompts/greeting/__latest__/runs", json=wanted)).json()
    body = {"model": "sim/echo", "messages": [{"role": "user", "content": "Bye {{ name }}"}]}
    await client.post("/prompts/greeting/versions", json=body)

    same = await client.post(f"/runs/{old['id']}/replay")
    current = await client.post(f"/runs/{old['id']}/replay", json={"version": "current"})

    runs = [(await client.get(f"/runs/{one.json()['id']}")).json() for one in (same, current)]
    assert [old["id"]] * 2 == [run["replayedFrom"] for run in runs]
    assert [1, 2] == [run["prompt"]["version"] for run in runs]
    assert [{"user": "42"}] * 2 == [run["metadata"] for run in runs]
    assert ["low"] * 2 == [run["priority"] for run in runs]
    assert 404 == (await client.post(f"/runs/{new_id()}/replay")).status_code
