"""What a request is told when its time is up just as its work ends, as after a freeze."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from litestar.types import Receive, Scope, Send

from api.deadline import GRACE_S, LIMIT, Deadline, Limit

RUN = "0199a7a0-0000-7000-8000-000000000001"
Work = Callable[[Limit, Send], Awaitable[None]]


async def asked(path: str, work: Work, *, method: str = "POST") -> tuple[int, dict[str, Any]]:
    """Let work answer a request without any time; answers the one answer that went out."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def app(scope: Scope, _: Receive, answer: Send) -> None:
        await work(scope["state"][LIMIT], answer)

    scope: Any = {"type": "http", "method": method, "path": path, "state": {"request_id": "r"}}
    await Deadline(app, 0)(scope, receive, send)
    start, body = sent
    assert ["http.response.start", "http.response.body"] == [start["type"], body["type"]]
    return start["status"], msgspec.json.decode(body["body"])


async def outlast(limit: Limit) -> None:
    """Keep the loop busy until the time is up, as a frozen process does, and go on at once."""
    loop = asyncio.get_running_loop()
    while loop.time() <= limit.ends_at + GRACE_S:
        pass
    going_on = loop.create_future()
    loop.call_soon(going_on.set_result, None)
    await going_on


async def answer_late(limit: Limit, answer: Send) -> None:
    await outlast(limit)
    await answer({"type": "http.response.start", "status": 200, "headers": []})
    await answer({"type": "http.response.body", "body": b"{}", "more_body": False})


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "p/1/runs"), ("POST", "p/1/runs"), ("POST", "p/1/preview")]
)
async def test_an_answer_that_comes_with_the_end_of_the_time_leaves_exactly_one(
    method: str, path: str
) -> None:
    status, problem = await asked(f"/api/v1/prompts/{path}", answer_late, method=method)

    assert (503, "unavailable") == (status, problem["code"])


async def test_a_submission_that_may_be_stored_is_never_called_refused() -> None:
    async def store_and_answer_late(limit: Limit, answer: Send) -> None:
        limit.stores(RUN)
        await answer_late(limit, answer)

    status, problem = await asked("/api/v1/prompts/p/1/runs", store_and_answer_late)

    assert (500, "outcome_unknown") == (status, problem["code"])
    assert RUN in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ""),
        ("PUT", "/p/tags/runs"),
        ("DELETE", "/p/tags/preview"),
        ("PATCH", "/runs"),
    ],
)
async def test_other_changes_may_or_may_not_have_been_stored(method: str, path: str) -> None:
    status, problem = await asked(f"/api/v1/prompts{path}", answer_late, method=method)

    assert (500, "outcome_unknown") == (status, problem["code"])
