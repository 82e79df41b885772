"""Environments and their write-only variables."""

from typing import Annotated

from litestar import Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from api.auth import SCOPE
from api.conditions import tagged
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared.deps import Deps
from shared.domain.preconditions import Expected
from shared.errors import BadRequestError, Flaw
from shared.services import environment_deletion, environments
from shared.services.environments import (
    EnvironmentChange,
    EnvironmentView,
    NewEnvironment,
    NewVariable,
    VariableView,
)
from shared.services.keys import Principal

_READ = {SCOPE: "environments:read"}
_WRITE = {SCOPE: "environments:write"}


@post("/environments", opt=_WRITE, summary="Create an environment")
async def create_environment(
    data: JSONBody[NewEnvironment],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> EnvironmentView:
    """Add an environment; the first of a workspace is its default."""
    return await environments.create(deps, principal, data)


@get("/environments", opt=_READ, dependencies=DEPENDENCIES, summary="List environments")
async def list_environments(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[EnvironmentView]:
    """The environments this key may use, newest first."""
    cursors = Cursors(principal.workspace_id, "environments")
    return asked.listing(cursors, await environments.listed(deps, principal, asked.page(cursors)))


@get("/environments/{name:str}", opt=_READ, summary="Read an environment")
async def read_environment(
    name: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[EnvironmentView]:
    """An environment by its name, whatever its case."""
    return tagged(await environments.get(deps, principal, name))


@patch("/environments/{name:str}", opt=_WRITE, summary="Change an environment")
async def change_environment(
    name: FromPath[str],
    data: JSONBody[EnvironmentChange],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[EnvironmentView]:
    """Change what is given; `"isDefault": true` takes over from the present default.

    `retention` is how long contents (inputs, messages, outputs) and runs stay after a run's end;
    `"none"` keeps contents until the webhooks are delivered. `limits` are runs that may wait and
    run at once.
    """
    return tagged(await environments.change(deps, principal, name, data, expected))


_ForceQuery = Annotated[
    str | None,
    QueryParameter(
        description="`true` cancels its runs first.",
        schema_extra={"one_of": None, "type": "boolean", "default": False},
    ),
]


@delete("/environments/{name:str}", opt=_WRITE, summary="Delete an environment")
async def delete_environment(
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    force: _ForceQuery = None,
) -> None:
    """Hide an environment and destroy its variables; refused while runs of it wait or run.

    With `force` it takes no more runs from that moment, and those it has are canceled, with their
    webhooks. Where that takes longer than a request may, or a request is cut off, repeat it.
    """
    if force not in {None, "true", "false"}:
        message = "force is true or false."
        raise BadRequestError(message, flaws=[Flaw("", message)])
    await environment_deletion.delete(deps, principal, name, force=force == "true")


@get(
    "/environments/{name:str}/variables",
    opt=_READ,
    dependencies=DEPENDENCIES,
    summary="List variables",
)
async def list_variables(
    name: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[VariableView]:
    """An environment's variables by name, with the last four characters of longer values."""
    cursors = Cursors(principal.workspace_id, "variables", name.lower())
    found = await environments.list_variables(deps, principal, name)
    return asked.cut(cursors, found, lambda view: view.key)


@put("/environments/{name:str}/variables/{key:str}", opt=_WRITE, summary="Set a variable")
async def set_variable(
    name: FromPath[str],
    key: FromPath[str],
    data: JSONBody[NewVariable],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> VariableView:
    """Keep a value sealed; it can be used by runs and never be read back."""
    return await environments.set_variable(deps, principal, name, key, data)


@delete("/environments/{name:str}/variables/{key:str}", opt=_WRITE, summary="Delete a variable")
async def delete_variable(
    name: FromPath[str],
    key: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> None:
    """Destroy a value."""
    await environments.remove_variable(deps, principal, name, key)


HANDLERS = [
    create_environment,
    list_environments,
    read_environment,
    change_environment,
    delete_environment,
    list_variables,
    set_variable,
    delete_variable,
]
