"""How many runs of an environment wait."""

from uuid import UUID

from shared.store.database import Store

_WAITING = """
SELECT count(*) FROM (SELECT 1 FROM runs r WHERE r.environment_id = %(environment)s
  AND r.status IN ('queued', 'scheduled') LIMIT %(limit)s) AS x
"""


async def waiting(store: Store, environment_id: UUID, limit: int) -> int:
    """How many wait, scheduled ones too; no more than `limit` are counted."""
    rows = await store.fetch(_WAITING, {"environment": environment_id, "limit": limit})
    return int(rows[0][0])
