"""Running flows: one request, one answer that shows every call."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import msgspec
import psycopg
import pytest

from api import flow_waits
from api.app import create_app
from api.server import WebServer
from api.waiters import Waiters
from shared.deps import Deps
from shared.domain.completions import ModelParams
from shared.errors import RunUnfinishedError
from shared.ids import RunId, new_id
from shared.services import billing
from shared.services.submissions import Accepted
from shared.store import pruning
from shared.store.pruning import Kept
from tests.api.clients import client_with, problem
from tests.api.flow_rig import MOMENT, NULL, differs, patient, runs, with_settings, working
from tests.factories import Tenant, a_prompt
from tests.worker.lane_rig import until
from worker.main import WorkerProcess

TABOO = {
    "syntax": "brackets",
    "templates": {
        "main": {
            "model": "sim/echo",
            "systemInstruction": "You explain a word. [[rules]]",
            "messages": [{"role": "user", "content": "Explain [[word]] to [[who]]."}],
        },
        "rules": {"text": "Never say [[taboo_words]]."},
        "taboo_words": {"text": "the word itself"},
        "short": {
            "model": "sim/echo",
            "messages": [{"role": "user", "content": "[[word]], please."}],
            "modelParams": {"maxCompletionTokens": 100, "topP": 0.5},
        },
    },
}
GOLDEN: Mapping[str, Any] = {
    "id": UUID,
    "timestamp": MOMENT,
    "creditsUsed": int,
    "milliseconds": int,
    "flowId": UUID,
    "tenantId": UUID,
    "userId": NULL,
    "flowRequest": {
        "parameters": {"word": str, "who": str},
        "environment": str,
        "overrideModel": NULL,
        "tags": NULL,
        "entrypoint": str,
        "version": NULL,
        "messages": NULL,
        "temperature": NULL,
        "maxTokens": NULL,
        "maxThinkingTokens": NULL,
        "maxToolCalls": NULL,
        "responseSchema": NULL,
        "vendorTools": NULL,
        "nonce": NULL,
        "logLevel": NULL,
        "customerId": NULL,
        "maxRequestCostCredits": NULL,
        "priority": NULL,
    },
    "requests": [
        {
            "id": UUID,
            "idCreated": MOMENT,
            "shuttleRequestId": UUID,
            "messages": [{"role": str, "text": str}, {"role": str, "text": str}],
            "model": str,
            "maxTokens": NULL,
            "seed": int,
            "temperature": NULL,
            "topP": NULL,
            "topK": NULL,
        }
    ],
    "responses": [
        {
            "model": str,
            "provider": str,
            "usage": {
                "tokensIn": int,
                "tokensOut": int,
                "tokensTotal": int,
                "costUsd": float,
                "costCredits": int,
            },
            "textResponse": str,
            "verbatimResponse": str,
            "error": NULL,
        }
    ],
    "creditsLeft": NULL,
    "usage": {
        "tokensIn": int,
        "tokensOut": int,
        "tokensTotal": int,
        "tokensCached": int,
        "tokensCacheWrite": int,
        "tokensReasoning": int,
        "costUsd": float,
        "creditsUsed": int,
        "creditsLeft": NULL,
    },
    "warnings": [],
    "status": str,
    "version": int,
    "versionId": UUID,
    "environment": str,
    "error": NULL,
}


deps = pytest.fixture(patient)
worker = pytest.fixture(working)


@pytest.fixture
async def taboo(deps: Deps, tenant: Tenant, client: httpx.AsyncClient) -> str:
    """A flow that is pinned in production; answers its id."""
    return await _pinned(deps, tenant, client, "taboo", TABOO)


async def _pinned(
    deps: Deps, tenant: Tenant, client: httpx.AsyncClient, slug: str, body: dict[str, Any]
) -> str:
    await a_prompt(deps, tenant, slug, body)
    pinned = await client.put(f"/environments/production/pins/{slug}", json={"version": 1})
    assert pinned.is_success, pinned.text
    return str((await client.get(f"/prompts/{slug}/1")).json()["promptId"])


async def _simulated(
    deps: Deps, tenant: Tenant, client: httpx.AsyncClient, model: str, **params: Any
) -> None:
    """The flow `simulated`, on a model of the simulated vendor."""
    body = {
        "model": f"sim/{model}",
        "messages": [{"role": "user", "content": "Hello"}],
        "modelParams": {"sim": params} if params else {},
    }
    await _pinned(deps, tenant, client, "simulated", body)


async def test_a_request_of_the_other_product_gets_its_answer_field_by_field(
    client: httpx.AsyncClient, tenant: Tenant, taboo: str, worker: WorkerProcess
) -> None:
    asked = {
        "parameters": {"word": "apple", "who": "a child"},
        "environment": "production",
        "overrideModel": None,
        "tags": None,
        "entrypoint": "main",
        "version": None,
    }

    answer = await client.post("/flows/taboo/runs", json=asked)

    assert 200 == answer.status_code, answer.text
    body = answer.json()
    assert [] == differs(GOLDEN, body)
    said = "You said: Explain apple to a child."
    told = "You explain a word. Never say the word itself."
    (sent,), (back,) = body["requests"], body["responses"]
    assert [
        {"role": "system", "text": told},
        {"role": "client", "text": "Explain apple to a child."},
    ] == sent["messages"]
    assert (said, said) == (
        back["textResponse"],
        httpx.Response(200, content=back["verbatimResponse"]).json()["text"],
    )
    assert ("echo", "echo", "sim", 0) == (
        sent["model"],
        back["model"],
        back["provider"],
        sent["seed"],
    )
    assert asked == {name: body["flowRequest"][name] for name in asked}
    assert (taboo, str(tenant.workspace_id)) == (body["flowId"], body["tenantId"])
    assert 0 < body["creditsUsed"] == back["usage"]["costCredits"]
    assert body["creditsUsed"] == int(back["usage"]["costUsd"] * 1_000_000)
    assert f"/api/v1/runs/{body['id']}" == answer.headers["location"]


async def test_a_metered_workspace_is_told_what_it_has_left_and_402_where_that_is_nothing(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, taboo: str, worker: WorkerProcess
) -> None:
    asked = {"parameters": {"word": "apple", "who": "a child"}}
    await billing.meter(deps, tenant.workspace_id, metered=True)

    empty = await client.post("/flows/taboo/runs", json=asked)
    await billing.grant(deps, tenant.workspace_id, 1_000_000, "a top-up")
    paid = (await client.post("/flows/taboo/runs", json=asked)).json()
    capped = await client.post("/flows/taboo/runs", json=asked | {"maxRequestCostCredits": 0})

    assert (402, "credits_exhausted", []) == problem(empty)
    assert paid["creditsUsed"] > 0
    assert 1_000_000 - paid["creditsUsed"] - paid["creditsLeft"] in {0, 1}  # each is cut off
    assert paid["creditsLeft"] == paid["usage"]["creditsLeft"]
    assert (402, "COST_LIMIT_EXCEEDED", []) == problem(capped)
    left = (await client.get("/credits")).json()
    assert (paid["creditsLeft"], 0) == (left["creditsLeft"], left["creditsHeld"])


async def test_the_same_run_is_read_through_its_flow_by_slug_or_id_and_through_no_other(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, taboo: str, worker: WorkerProcess
) -> None:
    await a_prompt(deps, tenant, "other")
    ran = await client.post(f"/flows/{taboo}/runs", json={"parameters": {"word": "a", "who": "b"}})

    run_id = ran.json()["id"]
    found = [await client.get(f"/flows/{flow}/runs/{run_id}") for flow in ("taboo", taboo)]
    foreign = await client.get(f"/flows/other/runs/{run_id}")
    native = (await client.get(f"/runs/{run_id}")).json()

    assert [ran.json()] * 2 == [one.json() for one in found]
    assert 404 == foreign.status_code
    assert ("succeeded", "onsite", "__pinned__") == (
        native["status"],
        native["priority"],
        native["prompt"]["tag"],
    )


async def test_a_run_whose_contents_are_erased_still_shows_what_it_cost_and_says_so(
    client: httpx.AsyncClient, deps: Deps, taboo: str, worker: WorkerProcess
) -> None:
    asked = {"parameters": {"word": "a", "who": "b"}}
    key = {"Idempotency-Key": "order-18"}
    ran = (await client.post("/flows/taboo/runs", json=asked, headers=key)).json()
    await pruning.erase(deps.store, Kept(0, None), 10)

    read = await client.get(f"/flows/taboo/runs/{ran['id']}")
    again = await client.post("/flows/taboo/runs", json=asked, headers=key)

    assert (200, 200) == (read.status_code, again.status_code), read.text
    body = read.json()
    assert body == again.json()
    assert ["What was asked and answered is erased: its environment keeps it no longer."] == body[
        "warnings"
    ]
    assert [[]] == [one["messages"] for one in body["requests"]]
    assert [(None, None)] == [
        (one["textResponse"], one["verbatimResponse"]) for one in body["responses"]
    ]
    kept = ("id", "status", "usage", "creditsUsed", "version")
    assert {name: ran[name] for name in kept} == {name: body[name] for name in kept}


async def test_a_token_without_a_value_stays_as_it_is_and_is_warned_of_like_an_unused_parameter(
    client: httpx.AsyncClient, taboo: str, worker: WorkerProcess
) -> None:
    answer = await client.post("/flows/taboo/runs", json={"parameters": {"word": "pear", "x": "y"}})

    body = answer.json()
    assert "Explain pear to [[who]]." == body["requests"][0]["messages"][1]["text"]
    assert [
        "'who' has neither a parameter nor a template: its token stays as it is.",
        "The parameter 'x' is asked for by no token.",
    ] == body["warnings"]


async def test_what_a_request_asks_for_goes_before_the_template(
    client: httpx.AsyncClient, taboo: str, worker: WorkerProcess
) -> None:
    asked = {
        "parameters": {"word": "Jazz"},
        "entrypoint": "short",
        "version": 1,
        "overrideModel": "sim/flaky",
        "temperature": 0.5,
        "maxTokens": 7,
        "maxThinkingTokens": 4000,
        "messages": [
            {"role": "assistant", "text": "Which one?"},
            {"role": "user", "content": '"the music"'},
        ],
        "responseSchema": {"type": "string"},
        "tags": ["quiz"],
        "nonce": "1",
        "logLevel": "Trace",
        "maxToolCalls": 3,
        "vendorTools": [],
        "customerId": "body",
        "priority": "low",
    }

    answer = await client.post(
        "/flows/taboo/runs",
        json=asked,
        headers={"X-Shuttle-Customer-Id": "header", "X-Shuttle-Debug-Url": "https://x.test/1"},
    )

    assert 200 == answer.status_code, answer.text
    body = answer.json()
    messages = [
        {"role": "client", "text": "Jazz, please."},
        {"role": "assistant", "text": "Which one?"},
        {"role": "client", "text": '"the music"'},
    ]
    first, second = body["requests"]
    assert (messages, "flaky", 7, 0.5, 0.5) == tuple(
        first[name] for name in ("messages", "model", "maxTokens", "temperature", "topP")
    )
    assert messages == second["messages"]
    assert [None, '"the music"'] == [one["textResponse"] for one in body["responses"]]
    assert "provider_server_error" == body["responses"][0]["error"]["code"]
    changed = {"messages": messages[1:], "customerId": "header"}
    assert asked | changed == {name: body["flowRequest"][name] for name in asked}
    assert body["creditsUsed"] == body["usage"]["creditsUsed"] > 0
    run = (await client.get(f"/runs/{body['id']}")).json()
    assert {"customerId": "header", "debugUrl": "https://x.test/1"} == run["metadata"]
    assert (["quiz"], "low") == (run["tags"], run["priority"])


async def test_a_run_that_an_older_worker_would_get_wrong_is_one_that_it_refuses(
    client: httpx.AsyncClient, deps: Deps, taboo: str, worker: WorkerProcess
) -> None:
    plain = {"parameters": {"word": "x"}, "temperature": 0.5}
    for more in ({}, {"entrypoint": "short"}, {"messages": [{"role": "client", "text": "Hm"}]}):
        assert 200 == (await client.post("/flows/taboo/runs", json=plain | more)).status_code

    rows = await deps.store.fetch("SELECT params::text FROM runs ORDER BY id", {})
    known_before = msgspec.json.Decoder(ModelParams)
    known_before.decode(rows[0][0])
    for row in rows[1:]:
        with pytest.raises(msgspec.ValidationError):
            known_before.decode(row[0])


async def test_a_replay_asks_the_same_again(
    client: httpx.AsyncClient, taboo: str, worker: WorkerProcess
) -> None:
    asked = {
        "parameters": {"word": "x"},
        "entrypoint": "short",
        "messages": [{"role": "client", "text": "Hm"}],
    }
    first = (await client.post("/flows/taboo/runs", json=asked)).json()

    replayed = await client.post(f"/runs/{first['id']}/replay")
    again = await client.get(f"/runs/{replayed.json()['id']}", params={"wait": 20})
    shown = (await client.get(f"/flows/taboo/runs/{again.json()['id']}")).json()

    assert ("succeeded", first["id"]) == (again.json()["status"], again.json()["replayedFrom"])
    assert first["flowRequest"] == shown["flowRequest"]
    assert first["requests"][0]["messages"] == shown["requests"][0]["messages"]


async def test_an_answer_that_misses_the_schema_is_shown_with_its_correction(
    client: httpx.AsyncClient, taboo: str, worker: WorkerProcess
) -> None:
    asked = {
        "parameters": {"word": "x"},
        "entrypoint": "short",
        "responseSchema": {"type": "object"},
    }

    body = (await client.post("/flows/taboo/runs", json=asked)).json()

    assert "incomplete" == body["status"]
    assert "The answer is incomplete: schema." == body["warnings"][-1]
    first, second = body["requests"]
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert body["responses"][0]["textResponse"] == second["messages"][1]["text"]
    assert "schema_mismatch" == body["responses"][0]["error"]["code"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"vendorTools": ["web_search"]}, "/vendorTools"),
        ({"entrypoint": "rules"}, "/entrypoint"),
        ({"entrypoint": "nobody"}, "/entrypoint"),
        ({"version": "production"}, "/version"),
        ({"environment": "nowhere"}, "/environment"),
        ({"overrideModel": "two words"}, "/overrideModel"),
        ({"temperature": 3}, "/temperature"),
        ({"maxTokens": 0}, "/maxTokens"),
        ({"responseSchema": {"type": "thing"}}, "/responseSchema"),
        ({"messages": [{"role": "client"}]}, "/messages/0"),
        ({"customerId": ""}, "/customerId"),
        ({"stream": True}, "/stream"),
    ],
)
async def test_what_cannot_be_done_as_asked_is_refused_where_it_stands(
    client: httpx.AsyncClient, deps: Deps, taboo: str, body: dict[str, Any], pointer: str
) -> None:
    answer = await client.post("/flows/taboo/runs", json=body)

    assert (422, [pointer]) == problem(answer)[::2], answer.text
    assert 0 == await runs(deps)


async def test_without_a_pin_a_flow_wants_its_version_named(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    await a_prompt(deps, tenant, "taboo", TABOO)
    version = (await client.get("/prompts/taboo/1")).json()["id"]

    unpinned = await client.post("/flows/taboo/runs", json={})
    unknown = await client.post("/flows/taboo/runs", json={"version": 9})
    named = [
        await client.post("/flows/taboo/runs", json={"version": one}) for one in (version, "1", 1)
    ]

    assert (409, "not_pinned", []) == problem(unpinned)
    assert (404, "not_found", []) == problem(unknown)
    assert [(200, version)] * 3 == [(one.status_code, one.json()["versionId"]) for one in named]


async def test_a_pin_that_moves_counts_for_the_next_run(
    client: httpx.AsyncClient, taboo: str, worker: WorkerProcess
) -> None:
    before = await client.post("/flows/taboo/runs", json={})
    second = {"model": "sim/echo", "messages": [{"role": "user", "content": "Two"}]}
    await client.post("/prompts/taboo/versions", json=second)
    await client.put("/environments/production/pins/taboo", json={"version": 2})
    after = await client.post("/flows/taboo/runs", json={})

    assert [1, 2] == [one.json()["version"] for one in (before, after)]


async def test_a_run_that_fails_answers_with_who_has_to_act_and_its_id(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    await _simulated(deps, tenant, client, "500")

    failed = await client.post("/flows/simulated/runs", json={})
    refused = await client.post("/flows/simulated/runs", json={"overrideModel": "openai/gpt-5"})
    refused_runs = (await client.get("/runs", params={"status": "failed"})).json()["data"]

    assert (502, "run_failed", []) == problem(failed)
    assert ("provider_server_error", "provider") == (
        failed.json()["runError"]["code"],
        failed.json()["runError"]["origin"],
    )
    assert (422, "run_refused", []) == problem(refused)
    assert "missing_credentials" == refused.json()["runError"]["code"]
    assert {failed.json()["runId"], refused.json()["runId"]} == {one["id"] for one in refused_runs}
    shown = await client.get(f"/flows/simulated/runs/{failed.json()['runId']}")
    assert ("failed", 3, 3) == (
        shown.json()["status"],
        len(shown.json()["requests"]),
        len(shown.json()["responses"]),
    )


async def test_a_run_that_is_canceled_meanwhile_answers_so(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    await _simulated(deps, tenant, client, "hang")
    asked = asyncio.create_task(client.post("/flows/simulated/runs", json={}))
    run_id = await _running(client)

    await client.post(f"/runs/{run_id}/cancel")

    answer = await asked
    assert (409, "run_stopped", []) == problem(answer)
    assert run_id == answer.json()["runId"]


async def test_a_run_longer_than_its_request_answers_504_and_goes_on(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    await _simulated(deps, tenant, client, "slow", delaySeconds=0.5)
    key = {"Idempotency-Key": "one"}
    async with client_with(with_settings(deps, flow_wait_s=0.1), tenant.key) as hasty:
        late = await hasty.post("/flows/simulated/runs", json={}, headers=key)

    again = await client.post("/flows/simulated/runs", json={}, headers=key)

    assert (504, "run_unfinished", []) == problem(late)
    assert (200, late.json()["runId"]) == (again.status_code, again.json()["id"])
    assert "true" == again.headers["idempotent-replayed"]
    assert 1 == await runs(deps)


def test_a_database_that_goes_once_the_run_is_accepted_leaves_the_caller_its_id() -> None:
    accepted = Accepted(RunId(new_id()), new_id(), "queued")

    with pytest.raises(RunUnfinishedError) as raised, flow_waits.accepted_already(accepted):
        raise psycopg.OperationalError("gone")

    assert str(accepted.id) == raised.value.run_id


async def test_repeats_with_one_key_wait_for_one_run_and_another_body_is_refused(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    await _simulated(deps, tenant, client, "slow", delaySeconds=0.2)
    key = {"Idempotency-Key": "one"}

    repeats = await asyncio.gather(
        *(client.post("/flows/simulated/runs", json={}, headers=key) for _ in range(5))
    )
    later = await client.post("/flows/simulated/runs", json={}, headers=key)
    other = await client.post("/flows/simulated/runs", json={"tags": ["x"]}, headers=key)

    assert {200} == {one.status_code for one in repeats}
    assert 1 == len({one.text for one in (*repeats, later)})
    assert (422, "idempotency_key_reused", []) == problem(other)
    assert 1 == await runs(deps)


async def test_without_a_place_to_wait_nothing_is_stored(deps: Deps, tenant: Tenant) -> None:
    async with client_with(with_settings(deps, waiters=1, flow_wait_s=0.5), tenant.key) as client:
        await _simulated(deps, tenant, client, "echo")
        first = asyncio.create_task(client.post("/flows/simulated/runs", json={}))
        await until(lambda: _stored(deps, 1))
        second = await client.post("/flows/simulated/runs", json={})
        await first
        third = await client.post("/flows/simulated/runs", json={})

    assert (503, "unavailable", []) == problem(second)
    assert "2" == second.headers["retry-after"]
    assert [504, 504] == [first.result().status_code, third.status_code]
    assert 2 == await runs(deps)


async def test_who_begins_to_wait_while_the_server_leaves_is_sent_on(deps: Deps) -> None:
    waiters = Waiters(deps)

    with flow_waits.place(waiters) as waiter:
        await waiters.close()
        waiter.listen(RunId(new_id()))
        async with asyncio.timeout(10):
            await waiter.wait(60)

    assert 0 == waiters.count


async def test_a_client_that_hangs_up_gives_its_place_back_and_loses_nothing(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    await _simulated(deps, tenant, client, "slow", delaySeconds=0.5)
    waiters = Waiters(deps)

    async with _served(deps, waiters) as url, httpx.AsyncClient(base_url=url) as caller:
        with pytest.raises(httpx.ReadTimeout):
            await caller.post(
                "/api/v1/flows/simulated/runs",
                json={},
                headers={"Authorization": f"Bearer {tenant.key}"},
                timeout=0.2,
            )
        await until(lambda: waiters.count == 0)
        (run,) = (await client.get("/runs")).json()["data"]
        left = run["status"]
        await until(lambda: _status(client, run["id"], "succeeded"))

    assert left in {"queued", "running"}
    shown = (await client.get(f"/flows/simulated/runs/{run['id']}")).json()
    assert "You said: Hello" == shown["responses"][-1]["textResponse"]


async def test_a_key_runs_flows_in_its_environments_only(
    client: httpx.AsyncClient, deps: Deps, taboo: str, worker: WorkerProcess
) -> None:
    await client.post("/environments", json={"name": "staging"})
    limited = {"name": "k", "scopes": ["runs:write", "prompts:read"], "environments": ["staging"]}
    key = (await client.post("/keys", json=limited)).json()["key"]
    ran = (await client.post("/flows/taboo/runs", json={})).json()["id"]

    async with client_with(deps, key) as holder:
        default = await holder.post("/flows/taboo/runs", json={})
        staging = await holder.post("/flows/taboo/runs", json={"environment": "staging"})
        read = await holder.get(f"/flows/taboo/runs/{ran}")
        asked = await holder.get("/flows/taboo/parameters?environment=production")
        of_default = await holder.get("/flows/taboo/parameters")
        of_version = await holder.get("/flows/taboo/parameters?version=1")

    assert (403, "environment_forbidden", []) == problem(default) == problem(asked)
    assert (403, "environment_forbidden", []) == problem(of_default)
    assert 200 == of_version.status_code
    assert (200, "staging") == (staging.status_code, staging.json()["environment"])
    assert 404 == read.status_code


async def test_the_parameters_of_a_flow_are_those_its_entrypoint_reaches(
    client: httpx.AsyncClient, taboo: str
) -> None:
    main = (await client.get("/flows/taboo/parameters")).json()
    short = (await client.get(f"/flows/{taboo}/parameters?entrypoint=short&version=1")).json()
    wrong = await client.get("/flows/taboo/parameters?entrypoint=rules")

    assert ["rules", "taboo_words", "word", "who"] == [one["token"] for one in main]
    rules = main[0]["promptTemplate"]
    assert {"id", "idCreated", "key", "name", "template", "language", "llm"} == rules.keys()
    assert ("rules", "Never say [[taboo_words]].", None) == (
        rules["name"],
        rules["template"],
        rules["llm"],
    )
    assert [{"token": "word", "promptTemplate": None}] == short
    assert (422, ["/entrypoint"]) == problem(wrong)[::2]


@asynccontextmanager
async def _served(deps: Deps, waiters: Waiters) -> AsyncIterator[str]:
    app: Any = create_app(deps, waiters)
    server = WebServer(app, host="127.0.0.1", port=0, receive_timeout_s=5)
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await waiters.close()
    await server.stop(1)


async def _stored(deps: Deps, count: int) -> bool:
    return count == await runs(deps)


async def _status(client: httpx.AsyncClient, run_id: str, status: str) -> bool:
    return bool(status == (await client.get(f"/runs/{run_id}")).json()["status"])


async def _running(client: httpx.AsyncClient) -> str:
    """The id of the run, once it is under way."""
    found: list[str] = []

    async def under_way() -> bool:
        listed = (await client.get("/runs", params={"status": "running"})).json()["data"]
        found.extend(one["id"] for one in listed)
        return bool(found)

    await until(under_way)
    return found[0]
