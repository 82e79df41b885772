"""What only the operator does: workspaces, keys, credits, lanes, the doctor."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from cli import doctor, serve
from cli.serve import StartError
from shared import log
from shared.deps import Deps
from shared.domain.environments import Retention
from shared.domain.states import Lane
from shared.ids import WorkspaceId, parse
from shared.services import billing, diagnosis, key_management, operations, rotation, workspaces
from shared.services.rotation import Rotated
from shared.settings import Settings

Result = TypeVar("Result")


def configured() -> Settings:
    """The settings of this process, its log set up by them."""
    settings = Settings()
    log.configure(settings.log_level)
    return settings


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
    workspace_id = _workspace_id(workspace)

    async def make(state: Deps) -> str:
        made = await key_management.create_for(state, workspace_id, name, scopes)
        return made.key

    return _with_deps(settings, make)


def credit_lines(settings: Settings, workspace: str) -> list[str]:
    """What a workspace may spend, as lines."""
    workspace_id = _workspace_id(workspace)
    view = _with_deps(settings, lambda state: billing.show(state, workspace_id))
    left = "not metered" if view.credits_left is None else str(view.credits_left)
    cap = view.max_request_cost_credits
    return [
        f"left          {left}",
        f"held          {view.credits_held}",
        f"a run at most {'no cap' if cap is None else cap}",
    ]


def grant_credits(settings: Settings, workspace: str, amount: int, comment: str) -> int:
    """Give credits to a workspace; answers what it has now."""
    workspace_id = _workspace_id(workspace)
    return _with_deps(settings, lambda state: billing.grant(state, workspace_id, amount, comment))


def meter(settings: Settings, workspace: str, *, metered: bool) -> None:
    """Let a workspace pay for its runs, or no longer."""
    workspace_id = _workspace_id(workspace)
    _with_deps(settings, lambda state: billing.meter(state, workspace_id, metered=metered))


def settle_credits(settings: Settings, workspace: str, *, charge: bool) -> int:
    """Settle what nobody knows the cost of; answers how many calls that were."""
    workspace_id = _workspace_id(workspace)
    return _with_deps(settings, lambda state: billing.settle(state, workspace_id, charge=charge))


def cap_requests(settings: Settings, workspace: str, amount: int | None) -> None:
    """Cap what one run of a workspace may cost."""
    workspace_id = _workspace_id(workspace)
    _with_deps(settings, lambda state: billing.cap_requests(state, workspace_id, amount))


def retain(
    settings: Settings, workspace: str, contents_days: int | None, runs_days: int | None
) -> None:
    """Say how long a workspace keeps things. Raises `StartError` where the workspace is no id."""
    workspace_id, retention = _workspace_id(workspace), Retention(contents_days, runs_days)
    _with_deps(settings, lambda state: workspaces.retain(state, workspace_id, retention))


def _workspace_id(text: str) -> WorkspaceId:
    found = parse(text)
    if found is None:
        raise StartError(
            "A workspace is named by its id, as `runlane workspaces create` prints it."
        )
    return WorkspaceId(found)


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
