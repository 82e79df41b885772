"""Which lanes the operator has paused."""

from shared.domain.states import Lane
from shared.store import database
from shared.store.database import Store, Tx

_PAUSE = "INSERT INTO lane_pauses (lane) VALUES (%(lane)s) ON CONFLICT DO NOTHING RETURNING lane"
_RESUME = "DELETE FROM lane_pauses WHERE lane = %(lane)s RETURNING lane"


async def pause(tx: Tx, lane: Lane) -> bool:
    """Write a pause down; `False`: it was there."""
    return bool(await database.fetch(tx, _PAUSE, {"lane": lane.value}))


async def resume(tx: Tx, lane: Lane) -> bool:
    """Take a pause back; `False`: there was none."""
    return bool(await database.fetch(tx, _RESUME, {"lane": lane.value}))


async def paused(store: Store) -> frozenset[Lane]:
    """The paused lanes."""
    rows = await store.fetch("SELECT lane FROM lane_pauses", {})
    return frozenset(Lane(row[0]) for row in rows)
