"""Flows: prompts as the flows door manages them."""

from litestar import Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from api.auth import SCOPE
from api.conditions import tagged
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared.deps import Deps
from shared.domain.flows import FlowVersion
from shared.domain.preconditions import Expected
from shared.services import flows
from shared.services.flows import (
    Activation,
    FlowVersionView,
    FlowView,
    NewFlow,
    WholeFlowVersionView,
)
from shared.services.keys import Principal

_READ = {SCOPE: "prompts:read"}
_WRITE = {SCOPE: "prompts:write"}


@post("/flows", opt=_WRITE, summary="Create a flow")
async def create_flow(
    data: JSONBody[NewFlow], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> FlowView:
    """Add a flow; its slug is made from the title, its first version is an empty draft."""
    return await flows.create(deps, principal, data)


@get("/flows", opt=_READ, dependencies=DEPENDENCIES, summary="List flows")
async def list_flows(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[FlowView]:
    """The workspace's flows, newest first. Every prompt is one."""
    cursors = Cursors(principal.workspace_id, "flows")
    return asked.listing(cursors, await flows.listed(deps, principal, asked.page(cursors)))


@get("/flows/{flow:str}", opt=_READ, summary="Read a flow")
async def read_flow(
    flow: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> FlowView:
    """A flow, and which version each environment runs."""
    return await flows.get(deps, principal, flow)


@post("/flows/{flow:str}/versions", opt=_WRITE, summary="Add a version of a flow")
async def add_flow_version(
    flow: FromPath[str],
    data: JSONBody[FlowVersion],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> WholeFlowVersionView:
    """Add a draft; it may lack what it needs to run until it is pinned."""
    return await flows.add_version(deps, principal, flow, data)


@get(
    "/flows/{flow:str}/versions",
    opt=_READ,
    dependencies=DEPENDENCIES,
    summary="List versions of a flow",
)
async def list_flow_versions(
    flow: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[FlowVersionView]:
    """A flow's versions, drafts included, newest first."""
    cursors = Cursors(principal.workspace_id, "flow versions", flow)
    found = await flows.list_versions(deps, principal, flow, asked.page(cursors))
    return asked.listing(cursors, found)


@get("/flows/{flow:str}/versions/{edition:str}", opt=_READ, summary="Read a version of a flow")
async def read_flow_version(
    flow: FromPath[str],
    edition: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[WholeFlowVersionView]:
    """A version with its templates."""
    return tagged(await flows.get_version(deps, principal, flow, edition))


@put("/flows/{flow:str}/versions/{edition:str}", opt=_WRITE, summary="Edit a version of a flow")
async def replace_flow_version(
    flow: FromPath[str],
    edition: FromPath[str],
    data: JSONBody[FlowVersion],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[WholeFlowVersionView]:
    """Give a draft other templates, all of them; once pinned, a version never changes."""
    return tagged(await flows.replace(deps, principal, (flow, edition), data, expected))


@post(
    "/flows/{flow:str}/versions/{edition:str}/fork", opt=_WRITE, summary="Fork a version of a flow"
)
async def fork_flow_version(
    flow: FromPath[str],
    edition: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> WholeFlowVersionView:
    """Copy a version into a new draft, which can be edited."""
    return await flows.fork(deps, principal, flow, edition)


@post(
    "/flows/{flow:str}/versions/{edition:str}/environments",
    status_code=HTTP_200_OK,
    opt=_WRITE,
    summary="Pin a version of a flow",
)
async def activate_flow_version(
    flow: FromPath[str],
    edition: FromPath[str],
    data: JSONBody[Activation],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> FlowView:
    """Let an environment run a version; that freezes it. The next run there gets it."""
    return await flows.activate(deps, principal, flow, edition, data)


HANDLERS = [
    create_flow,
    list_flows,
    read_flow,
    add_flow_version,
    list_flow_versions,
    read_flow_version,
    replace_flow_version,
    fork_flow_version,
    activate_flow_version,
]
