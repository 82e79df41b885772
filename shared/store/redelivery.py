"""Deliveries made by hand: a ping, one sent again, and all that an endpoint missed.

The events stay what they were, so a receiver sees the `webhook-id`s it knows. `tries` starts
again at 0: what is sent again gets the whole schedule.
"""

from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import text

from shared.ids import DeliveryId, EndpointId, WorkspaceId
from shared.store import database
from shared.store.database import Tx
from shared.store.run_json import UUID7, moment

# An event's id says when it was written, give or take how far a clock can be off.
_ID_SLACK_MS = 60_000
# Looked at in one statement: most events of a busy workspace were not missed.
_SCANNED = 5_000

_AGAIN = """SET status = 'pending', tries = 0, lease_no = y.lease_no + 1,
      next_try_at = now(), finished_at = NULL"""

# Pings belong to no run, and the index on `run_id` finds those.
_PING_WAIT = """
SELECT extract(epoch FROM v.created_at + interval '1 minute' - now())::float8
FROM events v JOIN deliveries y ON y.event_id = v.id AND y.endpoint_id = :endpoint
WHERE v.run_id IS NULL AND v.workspace_id = :workspace
  AND v.created_at > now() - interval '1 minute'
ORDER BY v.created_at DESC OFFSET :allowed - 1 LIMIT 1
"""
_PING = f"""
WITH event AS (
  INSERT INTO events (id, workspace_id, type, body)
  SELECT n.id, :workspace, 'ping', json_build_object('id', n.id, 'type', 'ping',
    'timestamp', {moment("now()")}, 'environment', NULL,
    'data', json_build_object('webhook', CAST(:endpoint AS uuid)))::text
  FROM (SELECT {UUID7} AS id OFFSET 0) AS n RETURNING id
)
INSERT INTO deliveries (id, workspace_id, event_id, endpoint_id, status, next_try_at)
SELECT {UUID7}, :workspace, event.id, :endpoint, 'pending', now() FROM event RETURNING id
"""


async def ping_wait_s(
    tx: Tx, workspace_id: WorkspaceId, endpoint_id: EndpointId, allowed: int
) -> float | None:
    """How long until an endpoint may be pinged again, `allowed` times a minute; `None`: now."""
    values = {"workspace": workspace_id, "endpoint": endpoint_id, "allowed": allowed}
    wait_s: float | None = await tx.scalar(text(_PING_WAIT), values)
    return wait_s


async def ping(tx: Tx, workspace_id: WorkspaceId, endpoint_id: EndpointId) -> DeliveryId:
    """Write an event for one endpoint alone, whatever events it wants."""
    values = {"workspace": workspace_id, "endpoint": endpoint_id}
    return DeliveryId(await tx.scalar(text(_PING), values))


class Resent(msgspec.Struct, frozen=True):
    """What a delivery was, whether its endpoint takes deliveries, and the type of its event."""

    status: str
    wanted: bool
    type: str


# The run is locked first, as whoever deletes it does: what goes with it is not sent again.
_RESEND = f"""
WITH run AS MATERIALIZED (
    SELECT r.id FROM deliveries y JOIN events v ON v.id = y.event_id JOIN runs r ON r.id = v.run_id
    WHERE y.workspace_id = %(workspace)s AND y.id = %(delivery)s FOR KEY SHARE OF r
  ),
  found AS MATERIALIZED (
    SELECT y.id, y.status, w.disabled_at IS NULL AND w.deleted_at IS NULL AS wanted, v.type
    FROM deliveries y JOIN webhook_endpoints w ON w.id = y.endpoint_id
      JOIN events v ON v.id = y.event_id
    WHERE y.workspace_id = %(workspace)s AND y.id = %(delivery)s
      AND (v.run_id IS NULL OR EXISTS (SELECT 1 FROM run)) FOR UPDATE OF y
  ),
  moved AS (
    UPDATE deliveries y {_AGAIN}
    FROM found f WHERE y.id = f.id AND f.wanted AND f.status <> 'pending'
  )
SELECT status, wanted, type FROM found
"""


async def resend(tx: Tx, workspace_id: WorkspaceId, delivery_id: DeliveryId) -> Resent | None:
    """Send a delivery again, unless it is pending or its endpoint wants none; `None`: unknown."""
    rows = await database.fetch(tx, _RESEND, {"workspace": workspace_id, "delivery": delivery_id})
    return Resent(*rows[0]) if rows else None


class Missed(msgspec.Struct, frozen=True):
    """One batch of recovered deliveries: how many, and the last event looked at."""

    count: int
    last_id: UUID
    last_at: datetime


_RECOVER = f"""
WITH scanned AS MATERIALIZED (
    SELECT v.id, v.created_at, v.type, v.environment_id, v.run_id FROM events v
    WHERE v.workspace_id = %(workspace)s AND v.id > %(after)s AND v.id < %(end)s
      AND v.created_at >= %(since)s AND v.created_at < %(until)s AND v.type <> 'ping'
    ORDER BY v.id LIMIT %(scan)s
  ),
  missed AS MATERIALIZED (
    SELECT v.id, v.created_at, v.run_id, y.id AS delivery_id
    FROM webhook_endpoints w CROSS JOIN scanned v
      LEFT JOIN deliveries y ON y.event_id = v.id AND y.endpoint_id = w.id
    WHERE w.workspace_id = %(workspace)s AND w.id = %(endpoint)s
      AND w.disabled_at IS NULL AND w.deleted_at IS NULL
      AND CASE WHEN y.id IS NOT NULL THEN y.status IN ('exhausted', 'canceled')
        ELSE v.created_at >= w.created_at
          AND (cardinality(w.environment_ids) = 0 OR v.environment_id = ANY(w.environment_ids))
          AND (cardinality(w.events) = 0 OR v.type = ANY(w.events)) END
    ORDER BY v.id LIMIT %(limit)s
  ),
  run AS MATERIALIZED (
    SELECT r.id FROM runs r JOIN missed m ON m.run_id = r.id ORDER BY r.id FOR KEY SHARE OF r
  ),
  there AS MATERIALIZED (SELECT * FROM missed WHERE run_id IN (SELECT id FROM run)),
  held AS MATERIALIZED (
    SELECT y.id FROM deliveries y JOIN there m ON y.id = m.delivery_id
    WHERE y.status <> 'pending' ORDER BY y.id FOR UPDATE OF y
  ),
  again AS (
    UPDATE deliveries y {_AGAIN} FROM held h WHERE y.id = h.id AND y.status <> 'pending'
  ),
  made AS (
    INSERT INTO deliveries (id, workspace_id, event_id, endpoint_id, status, next_try_at)
    SELECT {UUID7}, %(workspace)s, m.id, %(endpoint)s, 'pending', now()
    FROM there m WHERE m.delivery_id IS NULL ORDER BY m.id
    ON CONFLICT (event_id, endpoint_id) DO NOTHING
  )
SELECT (SELECT count(*) FROM there), l.id, l.created_at
FROM (SELECT count(*) AS missed FROM missed) AS n CROSS JOIN LATERAL (
    (SELECT m.id, m.created_at FROM missed m WHERE n.missed = %(limit)s
     ORDER BY m.id DESC LIMIT 1)
    UNION ALL
    (SELECT s.id, s.created_at FROM scanned s WHERE n.missed < %(limit)s
     ORDER BY s.id DESC LIMIT 1)
  ) AS l
"""


async def recover(
    tx: Tx,
    workspace_id: WorkspaceId,
    endpoint_id: EndpointId,
    window: tuple[datetime, datetime],
    after: UUID | None,
    limit: int,
) -> Missed | None:
    """Make pending what an endpoint missed within a window, oldest first; `None`: nothing is left.

    That is what ended `exhausted` or `canceled`, and events it wants that came while it was
    disabled. With a transaction for each batch, what a dead caller left is found by the next.
    """
    since, until = window
    values = {
        "workspace": workspace_id,
        "endpoint": endpoint_id,
        "since": since,
        "until": until,
        "after": after or _id_at(since, -_ID_SLACK_MS),
        "end": _id_at(until, _ID_SLACK_MS),
        "limit": limit,
        "scan": _SCANNED,
    }
    rows = await database.fetch(tx, _RECOVER, values)
    return Missed(*rows[0]) if rows else None


def _id_at(moment_: datetime, plus_ms: int) -> UUID:
    """The smallest id of a moment (RFC 9562, version 7)."""
    return UUID(int=max(int(moment_.timestamp() * 1000) + plus_ms, 0) << 80)
