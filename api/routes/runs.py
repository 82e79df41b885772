"""Runs: submit through the prompts door, read through both, cancel."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED, HTTP_304_NOT_MODIFIED

from api import answers, conditions, preferences, submitting
from api.auth import SCOPE
from api.deadline import LIMIT
from api.rates import COUNTS, Counts
from api.waiters import Waiters
from shared import ids
from shared.deps import Deps
from shared.domain.preconditions import etag
from shared.domain.submissions import Batch, BatchItem, Submission
from shared.errors import BadRequestError, Flaw, NotFoundError
from shared.ids import RunId
from shared.services import batches, replays, runs, submissions
from shared.services.keys import Principal
from shared.services.replays import Replay
from shared.services.submissions import Accepted
from shared.store import reading


@post(
    "/prompts/{slug:str}/{version:str}/runs",
    status_code=HTTP_200_OK,
    opt={SCOPE: "runs:write", COUNTS: Counts.SUBMISSION},
    summary="Submit a run",
)
async def submit_run(  # noqa: PLR0913, PLR0917 (what Litestar injects)
    slug: FromPath[str],
    version: FromPath[str],
    data: JSONBody[Submission],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    waiters: NamedDependency[Waiters],
) -> Response[bytes]:
    """Accept a run of a published version and answer with its id at once.

    With `Prefer: wait=N` (at most 60 seconds) the answer comes when the run is over, or when the
    time is, and holds the run as it is then.
    """
    wait_s = _preferred_wait_s(request, deps)
    wanted = submitting.request(request, data, slug, version)
    accepted = await submissions.submit(deps, principal, wanted)
    body, headers = _accepted(accepted)
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s}"
        await _wait(request, waiters, accepted.id, wait_s, deps)
        body |= await _as_it_is(deps, principal, accepted.id)
    return answers.document(body, headers=headers)


@post(
    "/runs/{run_id:str}/replay",
    status_code=HTTP_200_OK,
    opt={SCOPE: "runs:write", COUNTS: Counts.SUBMISSION},
    summary="Run a run again",
)
async def replay_run(
    run_id: FromPath[str],
    data: JSONBody[Replay],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[bytes]:
    """Submit a new run with what the old one was asked for; it says where it comes from."""
    found = _run_id(run_id)
    empty = Submission(inputs={})
    wanted = submitting.request(request, empty, "", "")
    accepted = await replays.replay(deps, principal, found, data, wanted)
    body, headers = _accepted(accepted)
    return answers.document(body, headers=headers)


@post(
    "/runs/batch",
    status_code=HTTP_200_OK,
    opt={SCOPE: "runs:write", COUNTS: Counts.BATCH},
    summary="Submit many",
)
async def submit_batch(
    data: JSONBody[Batch],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[bytes]:
    """Accept 1 to 1,000 runs in one transaction: all of them, or none."""
    state = request.scope["state"]
    documents = state["document"]["runs"]
    traceparent = submitting.traceparent(request)
    wanted = [
        submissions.Request(
            slug=item.prompt,
            version=str(item.version),
            body=item,
            ends_at=state[LIMIT].ends_at,
            idempotency_key=item.idempotency_key,
            fingerprint=_item_fingerprint(item, document),
            traceparent=traceparent,
        )
        for item, document in zip(data.runs, documents, strict=True)
    ]
    accepted = await batches.submit(deps, principal, wanted)
    runs_made = [{"id": one.id, "thread": one.thread, "status": one.status} for one in accepted]
    return answers.document({"runs": runs_made})


@get("/promptruns/{run_id:str}", opt={SCOPE: "runs:read"}, summary="Read a run (prompts door)")
async def read_prompt_run(
    run_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[bytes]:
    """The run as PromptJuggler's clients know it: pending, completed or failed."""
    text = await runs.read_prompt_run(deps, principal, _run_id(run_id))
    return answers.written(text.encode())


@get("/runs/{run_id:str}", opt={SCOPE: "runs:read"}, summary="Read a run")
async def read_run(
    run_id: FromPath[str],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    waiters: NamedDependency[Waiters],
    wait: Annotated[
        str | None, QueryParameter(description="Seconds to wait for its end, at most 60.")
    ] = None,
) -> Response[bytes]:
    """Everything about a run: status, attempts, messages as sent, tokens, cost."""
    found = _run_id(run_id)
    wait_s = _wait_s(wait, deps)
    text = await runs.read(deps, principal, found)
    if wait_s and not _status(text).done:
        await _wait(request, waiters, found, wait_s, deps)
        text = await runs.read(deps, principal, found)
    body = text.encode()
    tag = etag(body)
    if conditions.known(request, tag):
        return Response(b"", status_code=HTTP_304_NOT_MODIFIED, headers={"ETag": tag})
    return answers.written(body, headers={"ETag": tag})


@post("/runs/{run_id:str}/cancel", opt={SCOPE: "runs:write"}, summary="Cancel a run")
async def cancel_run(
    run_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[bytes]:
    """Ask a run to stop: 202 while it is stopping, 200 with the run once it is over."""
    text, stopping = await runs.cancel(deps, principal, _run_id(run_id))
    status = HTTP_202_ACCEPTED if stopping else HTTP_200_OK
    return answers.written(text.encode(), status)


def _accepted(accepted: Accepted) -> tuple[dict[str, Any], dict[str, str]]:
    """The body and the headers that answer a submission."""
    self_link = f"/api/v1/runs/{accepted.id}"
    headers = {"Location": self_link}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    body = {
        "id": accepted.id,
        "thread": accepted.thread,
        "status": accepted.status,
        "links": {"self": self_link, "promptRun": f"/api/v1/promptruns/{accepted.id}"},
    }
    return body, headers


async def _wait(
    request: Request[Any, Any, Any], waiters: Waiters, run_id: RunId, seconds: int, deps: Deps
) -> None:
    """Wait for the end of a run, if there is room among the waiters and it is not over yet."""
    waiter = waiters.enter(run_id)
    if waiter is None:
        return
    with waiter:
        if not await reading.over(deps.store, [run_id]):
            request.scope["state"][LIMIT].extend(seconds)
            await waiter.wait(seconds)


async def _as_it_is(deps: Deps, principal: Principal, run_id: RunId) -> dict[str, Any]:
    """What an answer that waited adds: the run's status now, and the run as its door shows it."""
    whole = await runs.read(deps, principal, run_id)
    shown = await runs.read_prompt_run(deps, principal, run_id)
    return {"status": _status(whole).status, "promptRun": msgspec.Raw(shown.encode())}


class _Status(msgspec.Struct):
    status: str
    done: bool


_status = msgspec.json.Decoder(_Status).decode


def _wait_s(text: str | None, deps: Deps) -> int:
    if text is None:
        return 0
    if not text.isdecimal() or not text.isascii() or int(text) > deps.settings.wait_max_s:
        message = f"wait is a number of seconds from 0 to {deps.settings.wait_max_s}."
        raise BadRequestError(message, flaws=[Flaw("", message)])
    return int(text)


def _preferred_wait_s(request: Request[Any, Any, Any], deps: Deps) -> int | None:
    """How long a submission is to wait for its run, if it prefers to."""
    wanted_s = preferences.wait_s(request.headers.getall("prefer", []))
    return None if wanted_s is None else min(wanted_s, deps.settings.wait_max_s)


def _run_id(text: str) -> RunId:
    found = ids.parse(text)
    if found is None:
        raise NotFoundError
    return RunId(found)


def _item_fingerprint(item: BatchItem, document: dict[str, Any]) -> bytes | None:
    """The fingerprint that the same submission would have by itself."""
    if item.idempotency_key is None:
        return None
    beside = {"prompt", "version", "idempotencyKey"}
    body = {name: value for name, value in document.items() if name not in beside}
    path = f"/api/v1/prompts/{item.prompt}/{item.version}/runs"
    return submissions.fingerprint("POST", path, body)


HANDLERS = [submit_run, replay_run, submit_batch, read_prompt_run, read_run, cancel_run]
