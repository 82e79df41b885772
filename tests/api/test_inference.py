"""Calling a model without a prompt."""

from uuid import UUID

import httpx
import pytest

from shared.deps import Deps
from tests.api.clients import problem
from tests.api.flow_rig import MOMENT, NULL, differs, patient, runs, working
from tests.factories import Tenant
from worker.main import WorkerProcess

USAGE = {
    "tokensIn": int,
    "tokensOut": int,
    "tokensTotal": int,
    "costUsd": float,
    "costCredits": int,
}
GOLDEN = {
    "creditsUsed": int,
    "llmCostCredits": int,
    "creditsLeft": NULL,
    "milliseconds": int,
    "result": {"model": str, "provider": str, "usage": USAGE},
    "pair": {
        "timestamp": MOMENT,
        "contextId": NULL,
        "request": {
            "id": UUID,
            "idCreated": MOMENT,
            "shuttleRequestId": UUID,
            "messages": [{"role": str, "text": str}],
            "model": str,
            "maxTokens": int,
            "seed": int,
            "temperature": float,
            "topP": float,
            "topK": NULL,
        },
        "response": {
            "id": UUID,
            "idCreated": MOMENT,
            "inferenceRequestId": UUID,
            "model": str,
            "provider": str,
            "usage": USAGE,
            "textResponse": str,
            "verbatimResponse": str,
            "userId": NULL,
            "milliseconds": int,
            "tenantId": UUID,
            "shuttleRequestId": UUID,
        },
    },
    "warnings": [],
    "status": str,
    "runId": UUID,
}
ASKED = {
    "messages": [{"role": "client", "text": "Hello [[nobody]]"}],
    "environment": "production",
    "model": "sim/echo",
    "tags": ["direct"],
    "isDebug": False,
    "maxTokens": 50,
    "seed": 0,
    "temperature": 0.5,
    "topP": 0.5,
    "topK": None,
}

deps = pytest.fixture(patient)
worker = pytest.fixture(working)


async def test_a_direct_call_is_answered_field_by_field_and_is_a_run(
    client: httpx.AsyncClient, worker: WorkerProcess
) -> None:
    answer = await client.post("/inference", json=ASKED)

    assert 200 == answer.status_code, answer.text
    body = answer.json()
    assert [] == differs(GOLDEN, body)
    pair = body["pair"]
    assert ASKED["messages"] == pair["request"]["messages"]
    assert "You said: Hello [[nobody]]" == pair["response"]["textResponse"]
    assert ("echo", "sim", 50) == (
        body["result"]["model"],
        body["result"]["provider"],
        pair["request"]["maxTokens"],
    )
    run = (await client.get(f"/runs/{body['runId']}")).json()
    assert ("succeeded", "onsite", ["direct"]) == (run["status"], run["priority"], run["tags"])


async def test_the_prompt_behind_direct_calls_shows_nowhere_and_is_made_once(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    for _ in range(2):
        assert 200 == (await client.post("/inference", json=ASKED)).status_code
    deps.targets.discard(tenant.workspace_id)
    assert 200 == (await client.post("/inference", json=ASKED)).status_code

    assert [] == (await client.get("/prompts")).json()["data"]
    assert 404 == (await client.get("/prompts/inference/1")).status_code
    assert [(1,)] == await deps.store.fetch("SELECT count(*) FROM prompts", {})
    assert 3 == await runs(deps)


async def test_a_direct_call_that_fails_says_so_like_a_flow(
    client: httpx.AsyncClient, worker: WorkerProcess
) -> None:
    answer = await client.post("/inference", json=ASKED | {"model": "sim/500"})

    assert (502, "run_failed", []) == problem(answer)
    assert "provider_server_error" == answer.json()["runError"]["code"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"seed": 7}, "/seed"),
        ({"topK": 3}, "/topK"),
        ({"model": "gpt-without-provider"}, "/model"),
        ({"messages": []}, "/messages"),
        ({"temperature": 9}, "/temperature"),
        ({"topP": 2}, "/topP"),
        ({"environment": "nowhere"}, "/environment"),
        ({"tools": []}, "/tools"),
    ],
)
async def test_what_a_direct_call_cannot_do_is_refused_where_it_stands(
    client: httpx.AsyncClient, deps: Deps, change: dict[str, object], pointer: str
) -> None:
    answer = await client.post("/inference", json=ASKED | change)

    assert (422, [pointer]) == problem(answer)[::2], answer.text
    assert 0 == await runs(deps)
