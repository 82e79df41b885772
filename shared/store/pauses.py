"""Which lanes the operator has paused."""

from shared.domain.states import Lane
from shared.store.database import Store

_PAUSE = "INSERT INTO lane_pauses (lane) VALUES (%(lane)s) ON CONFLICT DO NOTHING"
_RESUME = "DELETE FROM lane_pauses WHERE lane = %(lane)s"


async def pause(store: Store, lane: Lane) -> None:
    """Write a pause down."""
    await store.execute(_PAUSE, {"lane": lane.value})


async def resume(store: Store, lane: Lane) -> None:
    """Take a pause back."""
    await store.execute(_RESUME, {"lane": lane.value})


async def paused(store: Store) -> frozenset[Lane]:
    """The paused lanes."""
    rows = await store.fetch("SELECT lane FROM lane_pauses", {})
    return frozenset(Lane(row[0]) for row in rows)
