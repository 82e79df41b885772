"""Deleting an environment: at once where nothing is live in it, by force in steps.

By force it is closed first, which no crash takes back: a closed environment takes no runs. Then
its runs are canceled batch by batch, and at last it is removed. Asked again after a crash, or
because a request's time was over, the deletion goes on where it was.
"""

import asyncio
from typing import Final
from uuid import UUID

from shared import crashpoints, metrics
from shared.deps import Deps
from shared.domain.audit import Action
from shared.domain.states import RunStatus
from shared.errors import ConflictError
from shared.services import audit, environments, rings, runs
from shared.services.keys import Principal
from shared.store import closing, endpoints, workspaces
from shared.store.database import Tx
from shared.store.tables import EnvironmentRow

BATCH: Final = 100
_SHARE: Final = 0.6  # of a request's time; what is left removes the environment
_POLL_S: Final = 0.02


async def delete(deps: Deps, principal: Principal, name: str, *, force: bool) -> None:
    """Hide an environment and destroy its variables; webhooks for it alone are disabled.

    Raises `ConflictError` for the default one and while runs of it wait or run. With `force` those
    are canceled; what still runs when the request's time is over is such a conflict, too.
    """
    if force:
        closed = await _closed(deps, principal, name)
        if closed is not None:
            await _emptied(deps, closed)
    async with deps.store.transaction() as tx:
        row = await _deletable(tx, principal, name)
        await closing.hold(tx, row.id)
        waiting, running = await closing.live_runs(tx, row.id)
        if waiting or running:
            raise _in_use(waiting, running, closed=row.deleting_at is not None)
        await endpoints.leave_environment(tx, row.id, row.deleting_at)
        await workspaces.delete_environment(tx, row)
        await audit.note(tx, principal, Action.ENVIRONMENT_DELETED, environments.target(row))


async def _closed(deps: Deps, principal: Principal, name: str) -> UUID | None:
    """Close an environment unless it is closed already; `None`: nothing is live in it."""
    async with deps.store.transaction() as tx:
        row = await _deletable(tx, principal, name)
        if row.deleting_at is None:
            waiting, running = await closing.live_runs(tx, row.id)
            if not waiting and not running:
                return None
            await closing.begin(tx, row)
            details = {"waiting": waiting, "running": running}
            target = environments.target(row)
            await audit.note(tx, principal, Action.ENVIRONMENT_CLOSED, target, details)
        return row.id


async def _emptied(deps: Deps, environment_id: UUID) -> None:
    """Cancel what waits and stop what runs, for as long as a request may take."""
    ends_at = deps.clock.monotonic() + deps.settings.request_deadline_s * _SHARE
    while deps.clock.monotonic() < ends_at:
        canceled = await closing.cancel_waiting(deps.store, environment_id, BATCH)
        if canceled:
            crashpoints.reach("environment_mid_batch")
        await rings.ring_turns(deps, [one.next_turn for one in canceled])
        metrics.ENDED.add(RunStatus.CANCELED.value, "", by=len(canceled))
        for one in canceled:
            rings.announce(deps, one.run_id)
        stopping = await closing.stop_running(deps.store, environment_id, BATCH)
        for run_id in stopping:
            await runs.tell_worker(deps, run_id)
        if not canceled and not stopping:
            async with deps.store.transaction() as tx:
                waiting, running = await closing.live_runs(tx, environment_id)
            if not waiting and not running:
                return
            await asyncio.sleep(_POLL_S)


async def _deletable(tx: Tx, principal: Principal, name: str) -> EnvironmentRow:
    await workspaces.change_catalog(tx, principal.workspace_id)
    row = await environments.find(tx, principal, name)
    if row.is_default:
        raise ConflictError(
            "This is the default environment: make another one the default first.",
            code="default_environment",
        )
    return row


def _in_use(waiting: int, running: int, *, closed: bool) -> ConflictError:
    if closed:
        return ConflictError(
            f"{waiting} runs of this environment still wait and {running} still run; it takes no"
            " new ones. Repeat the request with ?force=true: it goes on.",
            code="environment_in_use",
            headers={"Retry-After": "1"},
        )
    return ConflictError(
        f"{waiting} runs of this environment wait and {running} run: let them end, or cancel them"
        " all and delete it with ?force=true.",
        code="environment_in_use",
    )
