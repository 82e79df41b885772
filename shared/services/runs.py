"""Runs after their submission: read them, stop them."""

import asyncio

import msgspec
from redis import RedisError

from shared import log, metrics
from shared.deps import Deps
from shared.domain.paging import Page, Slice
from shared.domain.states import Lane, RunStatus
from shared.errors import NotFoundError
from shared.ids import RunId
from shared.services import rings
from shared.services.keys import Principal
from shared.store import ending, listing, reading
from shared.store.listing import RunFilter
from shared.store.paging import Listed

_log = log.get(__name__)


async def read(deps: Deps, principal: Principal, run_id: RunId) -> str:
    """The whole run as JSON text. Raises `NotFoundError`, also where the key does not reach."""
    found = await reading.run(deps.store, principal.workspace_id, run_id, principal.environment_ids)
    if found is None:
        raise NotFoundError
    return found


async def read_prompt_run(deps: Deps, principal: Principal, run_id: RunId) -> str:
    """The run as the prompts door shows it, as JSON text. Raises `NotFoundError`."""
    found = await reading.prompt_run(
        deps.store, principal.workspace_id, run_id, principal.environment_ids
    )
    if found is None:
        raise NotFoundError
    return found


async def listed(deps: Deps, principal: Principal, wanted: RunFilter, page: Page) -> Slice[Listed]:
    """The runs in the key's reach that fit a filter, newest first."""
    return await listing.runs(
        deps.store, principal.workspace_id, wanted, page, principal.environment_ids
    )


class LaneLoad(msgspec.Struct, frozen=True):
    """What a workspace has in one lane; `oldest` is when the longest waiting run was submitted."""

    waiting: int
    running: int
    oldest: str | None
    paused: bool


async def queue(deps: Deps, principal: Principal) -> dict[Lane, LaneLoad]:
    """What the workspace has in each lane, as far as the key reaches."""
    found = await listing.queue(deps.store, principal.workspace_id, principal.environment_ids)
    return {lane: LaneLoad(*found[lane]) for lane in Lane}


async def cancel(deps: Deps, principal: Principal, run_id: RunId) -> tuple[str, bool]:
    """Ask a run to stop: at once where it waits, by news to its worker where it runs.

    Answers the run as JSON text and whether it is still stopping. A terminal run stays as it is.
    Raises `NotFoundError`.
    """
    answer = await ending.cancel(
        deps.store, principal.workspace_id, run_id, principal.environment_ids
    )
    if answer is not None:
        status, following = answer
        await rings.ring_turns(deps, [following])
        if status == RunStatus.RUNNING:
            await tell_worker(deps, run_id)
        else:
            metrics.ENDED.add(status, "")
            rings.announce(deps, run_id)
    stopping = answer is not None and answer[0] == RunStatus.RUNNING
    return await read(deps, principal, run_id), stopping


async def tell_worker(deps: Deps, run_id: RunId) -> None:
    """Pass on that a run is to stop.

    The worker also learns of it with its next lease renewal, should this not reach it.
    """
    try:
        async with asyncio.timeout(deps.settings.ring_budget_s):
            await deps.lanes.cancel(run_id)
    except (RedisError, OSError, TimeoutError) as error:
        _log.warning("cancel_untold", run_id=str(run_id), error=type(error).__name__)
