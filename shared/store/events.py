"""The feed of events: in the order of their transactions, without a gap.

A transaction takes its number early and commits late, so a smaller number can appear after a
larger one. The feed shows only what is below every number still under way: nothing can appear
there any more. An id alone, or a clock, would let a reader pass an event that is not there yet.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec

from shared.ids import WorkspaceId
from shared.store.database import Store


class Position(msgspec.Struct, frozen=True):
    """A place in the feed of one database: behind the event `id` of the transaction `tx`."""

    epoch: str
    tx: int
    id: UUID


class FeedPage(msgspec.Struct, frozen=True):
    """Events behind a position, and the position behind them.

    `reset` is true when the position was not made in this history of this database, so that
    what is behind it cannot be told.
    """

    bodies: Sequence[msgspec.Raw]
    end: Position
    more: bool
    reset: bool


# Which history this is: a cluster, its timeline (new after a recovery or failover), a database.
_HERE = """here AS MATERIALIZED (
  SELECT pg_snapshot_xmin(pg_current_snapshot()) AS edge,
    c.system_identifier || '.' || d.oid || '.' || CASE WHEN pg_is_in_recovery() THEN 'standby'
      ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS epoch
  FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
)"""

_NO_ID = UUID(int=0)
_START = Position("", 0, _NO_ID)

# The last line gives a row even where there is no event: the edge is needed in any case.
_PAGE = f"""
WITH {_HERE}
SELECT h.edge::text::bigint, h.epoch, f.tx::text::bigint, f.id, f.body
FROM here h LEFT JOIN LATERAL (
  SELECT v.tx, v.id, v.body FROM events v
  WHERE v.workspace_id = %(workspace)s AND v.tx < h.edge
    AND (v.tx, v.id) > (%(tx)s::text::xid8, %(id)s::uuid) AND {{within}}
  ORDER BY v.tx, v.id LIMIT %(limit)s
) AS f ON true ORDER BY f.tx, f.id
"""
_ALL = _PAGE.format(within="true")
_SOME = _PAGE.format(within="v.environment_id = ANY(%(environments)s)")
_END = f"WITH {_HERE} SELECT epoch, edge::text::bigint FROM here"


async def end(store: Store) -> Position:
    """The place behind everything the feed shows now; what is still to be committed comes after."""
    ((epoch, edge),) = await store.fetch(_END, {})
    return Position(epoch, edge, _NO_ID)


async def page(
    store: Store,
    workspace_id: WorkspaceId,
    after: Position | None,
    limit: int,
    *,
    within: Collection[UUID] = (),
) -> FeedPage:
    """Events behind a position, oldest first; `within` leaves those of these environments."""
    start = after or _START
    rows = await store.fetch(
        _SOME if within else _ALL,
        {
            "workspace": workspace_id,
            "tx": str(start.tx),
            "id": start.id,
            "environments": list(within),
            "limit": limit + 1,
        },
    )
    edge, epoch = rows[0][:2]
    found = [row[2:] for row in rows if row[2] is not None]
    shown = found[:limit]
    more = len(found) > limit
    # Behind the last of all there is nothing below the edge: the next look may begin there.
    tx, last = shown[-1][:2] if more else (edge, _NO_ID)
    return FeedPage(
        bodies=[msgspec.Raw(body.encode()) for _, _, body in shown],
        end=Position(epoch, tx, last),
        more=more,
        # A position is never above the edge it was made at, and the edge never falls.
        reset=after is not None and (after.epoch != epoch or after.tx > edge),
    )
