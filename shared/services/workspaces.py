"""Workspaces: made by the operator's command line, never over HTTP."""

from collections.abc import Sequence

import msgspec

from shared.deps import Deps
from shared.domain import environments as rules
from shared.domain import flaws
from shared.domain.audit import Action
from shared.domain.environments import Retention
from shared.errors import Flaw, NotFoundError
from shared.ids import EnvironmentId, WorkspaceId, new_id
from shared.services import audit
from shared.services.audit import Operator, Target
from shared.store import workspaces


class WorkspaceView(msgspec.Struct, frozen=True, rename="camel"):
    """A workspace just made, with the names of its environments; the first is the default."""

    id: WorkspaceId
    name: str
    server_credentials: bool
    environments: tuple[str, ...]


async def create_workspace(
    deps: Deps,
    name: str,
    *,
    server_credentials: bool | None = None,
    environments: Sequence[str] = ("production",),
) -> WorkspaceView:
    """Add a workspace with its environments, the first of them the default.

    Only the first workspace may use the server's own provider keys, unless `server_credentials`
    says otherwise. Raises `UnacceptableError` for names that will not do.
    """
    flaws.refuse(*flaws.of_name(name), *_environment_flaws(environments))
    workspace_id = WorkspaceId(new_id())
    async with deps.store.transaction() as tx:
        if server_credentials is None:
            server_credentials = await workspaces.count(tx) == 0
        await workspaces.insert(tx, workspace_id, name, server_credentials=server_credentials)
        for place, environment in enumerate(environments):
            await workspaces.insert_environment(
                tx, workspace_id, EnvironmentId(new_id()), environment, is_default=place == 0
            )
        target, details = Target("workspace", workspace_id, name), {"environments": [*environments]}
        await audit.note(tx, Operator(workspace_id), Action.WORKSPACE_CREATED, target, details)
    return WorkspaceView(workspace_id, name, server_credentials, tuple(environments))


async def retain(deps: Deps, workspace_id: WorkspaceId, retention: Retention) -> None:
    """Say how long contents and runs stay in environments that do not say it themselves.

    Raises `NotFoundError` where there is no such workspace.
    """
    columns = {
        "retain_contents_days": retention.contents_days,
        "retain_runs_days": retention.runs_days,
    }
    async with deps.store.transaction() as tx:
        name = await workspaces.configure_workspace(tx, workspace_id, columns)
        if name is None:
            raise NotFoundError
        details: dict[str, audit.Detail] = {
            "contentsDays": retention.contents_days,
            "runsDays": retention.runs_days,
        }
        target = Target("workspace", workspace_id, name)
        await audit.note(tx, Operator(workspace_id), Action.WORKSPACE_RETAINED, target, details)


def _environment_flaws(names: Sequence[str]) -> list[Flaw]:
    found = [
        flaw
        for place, name in enumerate(names)
        for flaw in rules.name_flaws(name, f"/environments/{place}")
    ]
    if len({name.lower() for name in names}) < len(names):
        found.append(Flaw("/environments", "Each environment needs a name of its own."))
    return found
