"""Submitting and reading runs, as a client of the prompts door sees it."""

import httpx

from shared.deps import Deps
from tests.factories import Tenant, a_prompt


async def test_submission_answers_200_with_id_thread_and_location(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)

    response = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})

    assert response.status_code == 200
    body = response.json()
    assert {"id", "thread"} <= body.keys()
    assert f"/api/v1/runs/{body['id']}" == response.headers["location"]
