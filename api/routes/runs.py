"""Runs: submit through the prompts door, read through both, cancel."""

import re
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED

from api.auth import SCOPE
from api.deadline import ENDS_AT
from shared import ids
from shared.deps import Deps
from shared.domain.submissions import Batch, BatchItem, Submission
from shared.errors import BadRequestError, NotFoundError
from shared.ids import RunId
from shared.services import batches, runs, submissions
from shared.services.keys import Principal

JSON = "application/json"
# Version 00 of W3C Trace Context; a malformed one is ignored, as the recommendation asks.
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_encode = msgspec.json.encode


@post(
    "/prompts/{slug:str}/{version:str}/runs",
    status_code=HTTP_200_OK,
    opt={SCOPE: "runs:write"},
    summary="Submit a run",
)
async def submit_run(
    slug: FromPath[str],
    version: FromPath[str],
    data: JSONBody[Submission],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[bytes]:
    """Accept a run of a published version and answer with its id at once."""
    state = request.scope["state"]
    key = _idempotency_key(request)
    accepted = await submissions.submit(
        deps,
        principal,
        submissions.Request(
            slug=slug,
            version=version,
            body=data,
            ends_at=state[ENDS_AT],
            idempotency_key=key,
            fingerprint=None
            if key is None
            else submissions.fingerprint("POST", request.scope["path"], state["document"]),
            traceparent=_traceparent(request),
        ),
    )
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
    return Response(_encode(body), media_type=JSON, headers=headers)


@post("/runs/batch", status_code=HTTP_200_OK, opt={SCOPE: "runs:write"}, summary="Submit many")
async def submit_batch(
    data: JSONBody[Batch],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[bytes]:
    """Accept 1 to 1,000 runs in one transaction: all of them, or none."""
    state = request.scope["state"]
    documents = state["document"]["runs"]
    traceparent = _traceparent(request)
    wanted = [
        submissions.Request(
            slug=item.prompt,
            version=str(item.version),
            body=item,
            ends_at=state[ENDS_AT],
            idempotency_key=item.idempotency_key,
            fingerprint=_item_fingerprint(item, document),
            traceparent=traceparent,
        )
        for item, document in zip(data.runs, documents, strict=True)
    ]
    accepted = await batches.submit(deps, principal, wanted)
    runs_made = [{"id": one.id, "thread": one.thread, "status": one.status} for one in accepted]
    return Response(_encode({"runs": runs_made}), media_type=JSON)


@get("/promptruns/{run_id:str}", opt={SCOPE: "runs:read"}, summary="Read a run (prompts door)")
async def read_prompt_run(
    run_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[bytes]:
    """The run as PromptJuggler's clients know it: pending, completed or failed."""
    text = await runs.read_prompt_run(deps, principal.workspace_id, _run_id(run_id))
    return Response(text.encode(), media_type=JSON)


@get("/runs/{run_id:str}", opt={SCOPE: "runs:read"}, summary="Read a run")
async def read_run(
    run_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[bytes]:
    """Everything about a run: status, attempts, messages as sent, tokens, cost."""
    text = await runs.read(deps, principal.workspace_id, _run_id(run_id))
    return Response(text.encode(), media_type=JSON)


@post("/runs/{run_id:str}/cancel", opt={SCOPE: "runs:write"}, summary="Cancel a run")
async def cancel_run(
    run_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[bytes]:
    """Ask a run to stop: 202 while it is stopping, 200 with the run once it is over."""
    text, stopping = await runs.cancel(deps, principal.workspace_id, _run_id(run_id))
    status = HTTP_202_ACCEPTED if stopping else HTTP_200_OK
    return Response(text.encode(), media_type=JSON, status_code=status)


def _run_id(text: str) -> RunId:
    found = ids.parse(text)
    if found is None:
        raise NotFoundError
    return RunId(found)


def _idempotency_key(request: Request[Any, Any, Any]) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise BadRequestError("An Idempotency-Key is 1 to 255 printable ASCII characters.")
    return key


def _item_fingerprint(item: BatchItem, document: dict[str, Any]) -> bytes | None:
    """The fingerprint that the same submission would have by itself."""
    if item.idempotency_key is None:
        return None
    beside = {"prompt", "version", "idempotencyKey"}
    body = {name: value for name, value in document.items() if name not in beside}
    path = f"/api/v1/prompts/{item.prompt}/{item.version}/runs"
    return submissions.fingerprint("POST", path, body)


def _traceparent(request: Request[Any, Any, Any]) -> str | None:
    given = request.headers.get("traceparent", "")
    return given if _TRACEPARENT.fullmatch(given) else None


HANDLERS = [submit_run, submit_batch, read_prompt_run, read_run, cancel_run]
