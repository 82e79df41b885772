"""What only the operator does: workspaces, keys, lanes, the doctor."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from cli import doctor, serve
from cli.serve import StartError
from shared.deps import Deps
from shared.domain.states import Lane
from shared.ids import WorkspaceId, parse
from shared.services import diagnosis, key_management, operations, rotation, workspaces
from shared.services.rotation import Rotated
from shared.settings import Settings

Result = TypeVar("Result")


def create_workspace(
    settings: Settings, name: str, environments: Sequence[str], *, server_credentials: bool | None
) -> str:
    """Make a workspace; answers its id."""

    async def make(state: Deps) -> str:
        made = await workspaces.create_workspace(
            state, name, server_credentials=server_credentials, environments=environments
        )
        return str(made.id)

    return _with_deps(settings, make)


def create_key(settings: Settings, workspace: str, name: str, scopes: Sequence[str]) -> str:
    """Make a key; answers its text. Raises `StartError` where the workspace is no id."""
    workspace_id = parse(workspace)
    if workspace_id is None:
        raise StartError(
            "A workspace is named by its id, as `runlane workspaces create` prints it."
        )

    async def make(state: Deps) -> str:
        made = await key_management.create_for(state, WorkspaceId(workspace_id), name, scopes)
        return made.key

    return _with_deps(settings, make)


def lane_lines(settings: Settings) -> list[str]:
    """Each lane with its length, as a line."""
    return [
        f"{view.lane:8} {view.waiting:8} waiting{'  (paused)' if view.paused else ''}"
        for view in _with_deps(settings, operations.lanes)
    ]


def pause(settings: Settings, lane: Lane) -> None:
    """Pause a lane."""
    _with_deps(settings, lambda state: operations.pause(state, lane))


def resume(settings: Settings, lane: Lane) -> None:
    """Resume a lane."""
    _with_deps(settings, lambda state: operations.resume(state, lane))


def rotate_secrets(settings: Settings, progress: rotation.Progress) -> Rotated:
    """Seal every secret anew under the newest master key."""

    async def work() -> Rotated:
        async with serve.opened(settings, worker=True) as (state, _):
            return await rotation.rotate(state, progress)

    return asyncio.run(work())


def examine(settings: Settings, *, fix: bool) -> bool:
    """Show what the doctor finds; answers whether all is well."""

    async def look() -> bool:
        async with serve.opened(settings, worker=True) as (state, lanes):
            return doctor.show(await diagnosis.examine(state, lanes, fix=fix))

    return asyncio.run(look())


def _with_deps(settings: Settings, work: Callable[[Deps], Coroutine[Any, Any, Result]]) -> Result:
    async def inside() -> Result:
        async with serve.opened(settings) as (state, _):
            return await work(state)

    return asyncio.run(inside())
