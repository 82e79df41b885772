"""Environments that let only so many runs run at once, and the runs that wait for that."""

from uuid import UUID

from shared.domain.states import Lane
from shared.ids import RunId
from shared.store.claiming import PARKED, Caps
from shared.store.database import Store

_CAPS = """
SELECT id, max_running_runs FROM environments
WHERE max_running_runs IS NOT NULL AND deleted_at IS NULL
"""
# Room is counted by this statement, not before it: a run that is parked while another ends is seen
# by whoever of the two looks last.
_UNPARK = f"""
WITH next AS MATERIALIZED (
    SELECT l.id FROM unnest(%(capped)s::uuid[], %(most)s::int[]) AS c(id, most)
      CROSS JOIN LATERAL (SELECT r.id FROM runs r WHERE r.environment_id = c.id
        AND r.status = 'queued' AND r.status_reason = '{PARKED}'
        ORDER BY r.priority DESC, r.id
        LIMIT greatest(c.most - (SELECT count(*) FROM runs x
          WHERE x.status = 'running' AND x.environment_id = c.id), 0)
        FOR UPDATE OF r SKIP LOCKED) AS l
  )
UPDATE runs r SET available_at = now(), status_reason = NULL FROM next n WHERE r.id = n.id
RETURNING r.id, r.priority
"""


async def known(store: Store) -> dict[UUID, int]:
    """The environments with a limit, and their limits."""
    return {row[0]: row[1] for row in await store.fetch(_CAPS, {})}


async def unpark(store: Store, caps: Caps) -> list[tuple[RunId, Lane]]:
    """Let as many runs wait no longer as there is room for; the caller rings them.

    The most urgent go first, then those that are there the longest.
    """
    rows = await store.fetch(_UNPARK, {"capped": list(caps), "most": list(caps.values())})
    return [(RunId(run_id), Lane(lane)) for run_id, lane in rows]
