"""Runs in numbers: the filtered list, the deliveries of one, the lanes of a workspace."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from api import answers
from api.auth import SCOPE
from api.paging import DEPENDENCIES, Asked, Cursors
from api.requests import QUERY_FAMILIES
from shared import ids
from shared.deps import Deps
from shared.domain.states import Lane, RunStatus
from shared.domain.submissions import Moment
from shared.errors import BadRequestError, Flaw, NotFoundError
from shared.ids import RunId
from shared.services import deliveries, runs
from shared.services.keys import Principal
from shared.services.runs import LaneLoad
from shared.store.listing import RunFilter

_READ = {SCOPE: "runs:read"}
_METADATA = "metadata["


@get(
    "/runs",
    opt=_READ | {QUERY_FAMILIES: ("metadata",)},
    dependencies=DEPENDENCIES,
    summary="List runs",
)
async def list_runs(  # noqa: PLR0913, PLR0917 (one parameter for each filter)
    request: Request[Any, Any, Any],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    status: Annotated[list[str] | None, QueryParameter(description="May repeat.")] = None,
    prompt: Annotated[str | None, QueryParameter(description="A prompt's slug.")] = None,
    version: Annotated[str | None, QueryParameter(description="A version's number.")] = None,
    tag: Annotated[str | None, QueryParameter(description="One of the run's tags.")] = None,
    environment: Annotated[str | None, QueryParameter(description="Its name.")] = None,
    priority: Annotated[str | None, QueryParameter(description="A lane.")] = None,
    thread: Annotated[str | None, QueryParameter(description="A thread's id.")] = None,
    created_after: Annotated[
        str | None, QueryParameter(name="createdAfter", description="A moment.")
    ] = None,
    created_before: Annotated[
        str | None, QueryParameter(name="createdBefore", description="A moment.")
    ] = None,
) -> Response[bytes]:
    """The workspace's runs, newest first, without inputs, messages and attempts.

    `metadata[key]=value` keeps the runs whose metadata has that value.
    """
    given = {
        "statuses": status,
        "prompt": prompt,
        "version": version,
        "tag": tag,
        "environment": environment,
        "priority": priority,
        "thread": thread,
        "created_after": created_after,
        "created_before": created_before,
        "metadata": _metadata(request),
    }
    wanted = _filter(given)
    cursors = Cursors(principal.workspace_id, "runs", wanted)
    page = asked.page(cursors)
    listing = asked.listing(cursors, await runs.listed(deps, principal, wanted, page))
    body = {
        "data": [run.json for run in listing.data],
        "hasMore": listing.has_more,
        "nextCursor": listing.next_cursor,
    }
    return answers.document(body)


@get("/runs/{run_id:str}/deliveries", opt=_READ, summary="List a run's deliveries")
async def list_deliveries(
    run_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[bytes]:
    """Each webhook that was told of this run's end, with every try."""
    found = ids.parse(run_id)
    if found is None:
        raise NotFoundError
    data = await deliveries.of_run(deps, principal, RunId(found))
    body = {"data": data, "hasMore": False, "nextCursor": None}
    return answers.document(body)


@get("/queue", opt=_READ, summary="Read the lanes")
async def read_queue(
    principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> dict[Lane, LaneLoad]:
    """What this workspace has waiting and running in each lane."""
    return await runs.queue(deps, principal)


_FIELDS = {
    "statuses": tuple[RunStatus, ...],
    "version": int,
    "priority": Lane,
    "thread": UUID,
    "created_after": Moment,
    "created_before": Moment,
}


def _filter(given: dict[str, Any]) -> RunFilter:
    values: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        try:
            values[name] = msgspec.convert(value, _FIELDS.get(name, Any), strict=False)
        except msgspec.ValidationError as error:
            message = f"The filter {name} is not understood: {error}."
            raise BadRequestError(message, flaws=[Flaw("", message)]) from error
    return RunFilter(**values)


def _metadata(request: Request[Any, Any, Any]) -> tuple[tuple[str, str], ...] | None:
    pairs = tuple(
        sorted(
            (name[len(_METADATA) : -1], value)
            for name, value in request.query_params.multi_items()
            if name.startswith(_METADATA) and name.endswith("]")
        )
    )
    return pairs or None


HANDLERS = [list_runs, list_deliveries, read_queue]
