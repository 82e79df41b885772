"""Waiting for a run within its own submission: a place first, then the run, then its end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import psycopg
from litestar import Request, Response

from api import answers, submitting
from api.deadline import LIMIT
from api.waiters import Waiter, Waiters
from shared.deps import Deps
from shared.domain.flow_runs import FlowRequest
from shared.domain.inference import InferenceRequest
from shared.domain.submissions import Submission
from shared.errors import RunUnfinishedError, UnavailableError
from shared.ids import RunId
from shared.services import submissions
from shared.services.submissions import Accepted
from shared.store import reading

DEBUG_URL_MAX = 512
NOTHING = Submission(inputs={})

Body = TypeVar("Body", FlowRequest, InferenceRequest)


async def answered(
    request: Request[Any, Any, Any],
    waiters: Waiters,
    deps: Deps,
    flow: str,
    *,
    submit: Callable[[submissions.Request], Awaitable[Accepted]],
    answer: Callable[[RunId], Awaitable[object]],
) -> Response[bytes]:
    """Submit a run, wait until it is over, and answer with what `answer` makes of it.

    Raises `UnavailableError` before anything is stored, and what the two raise.
    """
    with place(waiters) as waiter:
        wanted = submitting.request(request, NOTHING, flow, "")
        accepted = await submit(heard(wanted, waiter))
        with accepted_already(accepted):
            await until_over(request, waiter, accepted, deps)
            found = await answer(accepted.id)
    return answers.document(found, headers=headers(accepted))


def place(waiters: Waiters) -> Waiter:
    """A place among those who wait. Raises `UnavailableError` before anything is stored."""
    waiter = waiters.reserve()
    if waiter is None:
        raise UnavailableError("As many requests wait for runs as may at once; nothing was stored.")
    return waiter


def heard(wanted: submissions.Request, waiter: Waiter) -> submissions.Request:
    """The submission, whose run is listened for from before it exists."""
    stores = wanted.stores

    def listen(run_id: str) -> None:
        waiter.listen(RunId(UUID(run_id)))
        if stores is not None:
            stores(run_id)

    return msgspec.structs.replace(wanted, stores=listen)


async def until_over(
    request: Request[Any, Any, Any], waiter: Waiter, accepted: Accepted, deps: Deps
) -> None:
    """Wait until the run is over, the client has gone, or the time is up."""
    limit = request.scope["state"][LIMIT]
    limit.accepted_as = str(accepted.id)
    if accepted.id != waiter.listens_for or accepted.replayed:
        waiter.listen(accepted.id)
        if await reading.over(deps.store, [accepted.id]):
            return
    seconds = deps.settings.flow_wait_s
    limit.extend(seconds)
    gone = asyncio.create_task(_gone(request))
    gone.add_done_callback(lambda _: waiter.wake())
    try:
        await waiter.wait(seconds)
    finally:
        gone.cancel()


@contextmanager
def accepted_already(accepted: Accepted) -> Iterator[None]:
    """What goes wrong from here on must not read as if there were no run."""
    try:
        yield
    except psycopg.Error as error:
        raise RunUnfinishedError(str(accepted.id)) from error


def headers(accepted: Accepted) -> dict[str, str]:
    """What an answer's head says about its run."""
    found = {"Location": f"/api/v1/runs/{accepted.id}"}
    return found | {"Idempotent-Replayed": "true"} if accepted.replayed else found


def for_customer(request: Request[Any, Any, Any], body: Body) -> Body:
    """The body with whom the header says the run is for; it goes before what the body says."""
    customer = request.headers.get("x-shuttle-customer-id")
    return body if customer is None else msgspec.structs.replace(body, customer_id=customer)


def debug_url(request: Request[Any, Any, Any]) -> str | None:
    """What `X-Shuttle-Debug-Url` names, where it can be kept: it changes nothing."""
    url = request.headers.get("x-shuttle-debug-url")
    return url if url and url.isprintable() and len(url) <= DEBUG_URL_MAX else None


async def _gone(request: Request[Any, Any, Any]) -> None:
    """Return when the client has hung up: with its body read, nothing else can come."""
    await request.receive()
