"""What only the operator may do with the lanes: pause, resume, look."""

import msgspec

from shared.deps import Deps
from shared.domain.audit import Action
from shared.domain.states import Lane
from shared.services import audit
from shared.services.audit import Operator, Target
from shared.store import pauses


class LaneView(msgspec.Struct, frozen=True):
    """A lane: how many ids wait in Redis, due or not, and whether it is paused."""

    lane: Lane
    waiting: int
    paused: bool


async def pause(deps: Deps, lane: Lane) -> None:
    """Start no run of a lane until it is resumed; submissions go on, what runs is left alone.

    The row is what counts: should Redis be emptied, the sweeper pauses the lane there again.
    """
    async with deps.store.transaction() as tx:
        if await pauses.pause(tx, lane):
            await audit.note(tx, Operator(), Action.LANE_PAUSED, Target("lane", None, lane.value))
    await deps.lanes.pause(lane)


async def resume(deps: Deps, lane: Lane) -> None:
    """Let a lane's runs start again."""
    async with deps.store.transaction() as tx:
        if await pauses.resume(tx, lane):
            await audit.note(tx, Operator(), Action.LANE_RESUMED, Target("lane", None, lane.value))
    await deps.lanes.resume(lane)


async def align(deps: Deps) -> None:
    """Make Redis pause what the database says is paused, and nothing else."""
    wanted, held = await pauses.paused(deps.store), await deps.lanes.paused()
    for lane in wanted - held:
        await deps.lanes.pause(lane)
    for lane in held - wanted:
        await deps.lanes.resume(lane)


async def lanes(deps: Deps) -> list[LaneView]:
    """Every lane with its length."""
    waiting, paused = await deps.lanes.waiting(), await pauses.paused(deps.store)
    return [LaneView(lane, waiting[lane], lane in paused) for lane in Lane]
