"""The flows door: run a flow and wait for its answer."""

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from api import answers, flow_waits
from api.auth import SCOPE
from api.rates import COUNTS, Counts
from api.waiters import Waiters
from shared import ids
from shared.deps import Deps
from shared.domain.flow_runs import FlowRequest
from shared.errors import NotFoundError
from shared.ids import RunId
from shared.services import flow_parameters, flow_runs
from shared.services.keys import Principal


@post(
    "/flows/{flow:str}/runs",
    status_code=HTTP_200_OK,
    opt={SCOPE: "runs:write", COUNTS: Counts.SUBMISSION},
    summary="Run a flow",
)
async def run_flow(
    flow: FromPath[str],
    data: JSONBody[FlowRequest],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    waiters: NamedDependency[Waiters],
) -> Response[bytes]:
    """Submit a run, wait until it is over, and answer with every call it made.

    It waits in the lane `onsite` unless the body says otherwise. A client that hangs up loses
    nothing: the run goes on. After `FLOW_WAIT_S` seconds the answer is 504 with the run's id.
    """
    body, debug_url = flow_waits.for_customer(request, data), flow_waits.debug_url(request)
    return await flow_waits.answered(
        request,
        waiters,
        deps,
        flow,
        submit=lambda wanted: flow_runs.submit(deps, principal, body, wanted, debug_url),
        answer=lambda run_id: flow_runs.answer(deps, principal, run_id),
    )


@get(
    "/flows/{flow:str}/runs/{run_id:str}",
    opt={SCOPE: "runs:read"},
    summary="Read a run of a flow",
)
async def read_flow_run(
    flow: FromPath[str],
    run_id: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[bytes]:
    """The run as its flow's door shows it, whatever became of it; `status` says what did."""
    found = ids.parse(run_id)
    if found is None:
        raise NotFoundError
    return answers.document(await flow_runs.read(deps, principal, flow, RunId(found)))


@get(
    "/flows/{flow:str}/parameters",
    opt={SCOPE: "prompts:read"},
    summary="List what a flow asks for",
)
async def list_parameters(
    flow: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    version: Annotated[
        str | None, QueryParameter(description="A version's number or id, else the pinned one.")
    ] = None,
    environment: Annotated[
        str | None, QueryParameter(description="Whose pin counts; the default one when left out.")
    ] = None,
    entrypoint: Annotated[
        str | None, QueryParameter(description="The template to start from.")
    ] = None,
) -> Response[bytes]:
    """The tokens that can be reached from the entrypoint, each with the template of its name.

    Where there is such a template, a parameter may be left out.
    """
    wanted = flow_parameters.Wanted(version, environment, entrypoint)
    return answers.document(await flow_parameters.listed(deps, principal, flow, wanted))


HANDLERS = [run_flow, read_flow_run, list_parameters]
