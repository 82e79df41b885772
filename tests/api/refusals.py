"""What tests of bad input share: a submission, and what every refusal must look like."""

import httpx

from shared.deps import Deps

RUNS = "/prompts/greeting/1/runs"
BODY = {"inputs": {"name": "Ada"}}
JSON = {"content-type": "application/json"}
PROBLEM = {"type", "title", "status", "detail", "code", "requestId", "errors", "error"}


async def stored(deps: Deps) -> int:
    rows = await deps.store.fetch("SELECT count(*) FROM runs", {})
    return int(rows[0][0])


async def post_raw(client: httpx.AsyncClient, body: bytes, **headers: str) -> httpx.Response:
    return await client.post(RUNS, content=body, headers=JSON | headers)


def refused(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem that is complete and gives nothing away."""
    body = response.json()
    assert body.keys() >= PROBLEM
    assert "application/problem+json" == response.headers["content-type"]
    assert (response.status_code, body["detail"]) == (body["status"], body["error"])
    assert response.headers["x-request-id"] == body["requestId"]
    assert not any(word in response.text for word in ("Traceback", "SELECT", "psycopg"))
    return response.status_code, body["code"]
