"""How long an environment keeps things: what is asked for, and what is left to read then."""

import httpx
import pytest

from shared.deps import Deps
from shared.store import pruning
from shared.store.pruning import Kept
from tests.api.clients import problem, without_request_id
from tests.api.refusals import BODY, RUNS
from tests.factories import Tenant, a_prompt

FOR_EVER = Kept(None, None)


@pytest.fixture(autouse=True)
async def greeting(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant)


async def _over(client: httpx.AsyncClient) -> str:
    """A run that has ended."""
    run_id = str((await client.post(RUNS, json=BODY)).json()["id"])
    await client.post(f"/runs/{run_id}/cancel")
    return run_id


async def test_retention_and_limits_are_set_shown_and_replaced_as_a_whole(
    client: httpx.AsyncClient,
) -> None:
    nothing = {"contentsDays": None, "runsDays": None}
    shown: list[object] = []
    for body in (
        {"name": "live"},
        {"retention": {"contentsDays": 7, "runsDays": 90}, "limits": {"queuedRuns": 500}},
        {"retention": "none"},
        {"retention": {}, "limits": {"runningRuns": 5}},
    ):
        await client.patch("/environments/live" if shown else "/environments/production", json=body)
        found = (await client.get("/environments/live")).json()
        shown.append((found["retention"], found["limits"]))

    assert [
        (nothing, {"queuedRuns": None, "runningRuns": None}),
        ({"contentsDays": 7, "runsDays": 90}, {"queuedRuns": 500, "runningRuns": None}),
        ({"contentsDays": 0, "runsDays": None}, {"queuedRuns": 500, "runningRuns": None}),
        (nothing, {"queuedRuns": None, "runningRuns": 5}),
    ] == shown
    entries = (await client.get("/audit?action=environment.changed")).json()["data"]
    assert [["retention", "limits"], ["retention"], ["retention", "limits"], ["name"]] == [
        entry["details"]["fields"] for entry in entries
    ]


async def test_an_environment_begins_with_the_retention_it_is_made_with(
    client: httpx.AsyncClient,
) -> None:
    made = await client.post("/environments", json={"name": "private", "retention": "none"})

    assert {"contentsDays": 0, "runsDays": None} == made.json()["retention"]


@pytest.mark.parametrize(
    "body",
    [
        {"retention": "all"},
        {"retention": 7},
        {"retention": {"contentsDays": -1}},
        {"retention": {"contentsDays": 3651}},
        {"retention": {"runsDays": 0}},
        {"retention": {"runsDays": "7"}},
        {"retention": {"contentDays": 7}},
        {"limits": {"queuedRuns": 0}},
        {"limits": {"runningRuns": True}},
        {"limits": []},
    ],
)
async def test_other_retentions_and_limits_are_refused(
    client: httpx.AsyncClient, body: dict[str, object]
) -> None:
    answer = await client.patch("/environments/production", json=body)

    assert (422, "invalid") == problem(answer)[:2]


async def test_erased_contents_read_as_null_and_cannot_be_run_again(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    run_id = await _over(client)
    before = (await client.get(f"/runs/{run_id}")).json()
    await client.patch("/environments/production", json={"retention": "none"})
    await pruning.erase(deps.store, FOR_EVER, 10)

    after = (await client.get(f"/runs/{run_id}")).json()
    through_prompts_door = (await client.get(f"/promptruns/{run_id}")).json()
    replayed = await client.post(f"/runs/{run_id}/replay", json={})

    assert (BODY["inputs"], None) == (before["inputs"], before["contentsErasedAt"])
    assert after["contentsErasedAt"] is not None
    assert before | {name: after[name] for name in ("inputs", "contentsErasedAt")} == after
    assert after["inputs"] is None
    assert ("failed", None, []) == tuple(
        through_prompts_door[name] for name in ("status", "output", "transcript")
    )
    assert (409, "contents_erased", []) == problem(replayed)


async def test_a_run_that_is_gone_is_as_unknown_as_one_that_never_was(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    run_id, other = await _over(client), await _over(client)
    await deps.store.execute(
        "UPDATE runs SET finished_at = now() - interval '2 days' WHERE id = %(id)s::uuid",
        {"id": run_id},
    )
    await client.patch("/environments/production", json={"retention": {"runsDays": 1}})
    await pruning.delete(deps.store, FOR_EVER, 10)

    gone = await client.get(f"/runs/{run_id}")
    never = await client.get(f"/runs/{other[:-4]}0000")
    listed = (await client.get("/runs")).json()["data"]
    events = (await client.get("/events")).json()["data"]

    assert 404 == gone.status_code
    assert without_request_id(never) == without_request_id(gone)
    assert [other] == [run["id"] for run in listed]
    assert [other] == [event["data"]["run"]["id"] for event in events]


async def test_a_key_whose_run_is_gone_makes_a_new_one(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    key = {"Idempotency-Key": "order-18"}
    first = (await client.post(RUNS, json=BODY, headers=key)).json()["id"]
    await client.post(f"/runs/{first}/cancel")
    await deps.store.execute("UPDATE runs SET finished_at = now() - interval '2 days'", {})
    await pruning.delete(deps.store, Kept(None, 1), 10)

    again = await client.post(RUNS, json=BODY, headers=key)

    assert 200 == again.status_code
    assert first != again.json()["id"]
