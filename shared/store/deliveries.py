"""Webhook deliveries: found by due time, leased by moving that time, settled with their tries."""

from collections.abc import Sequence

import msgspec

from shared.store.database import Store
from shared.store.ending import DueDelivery, sealed_secrets

_CLAIM = f"""
WITH ready AS MATERIALIZED (
    SELECT y.id, w.disabled_at IS NULL AND w.deleted_at IS NULL AS wanted
    FROM deliveries y JOIN webhook_endpoints w ON w.id = y.endpoint_id
    WHERE y.status = 'pending' AND y.next_try_at <= now()
    ORDER BY y.next_try_at LIMIT %(limit)s FOR UPDATE OF y SKIP LOCKED
  ),
  unwanted AS (
    UPDATE deliveries y SET status = 'canceled', finished_at = now()
    FROM ready l WHERE y.id = l.id AND NOT l.wanted
  ),
  mine AS (
    UPDATE deliveries y SET lease_no = y.lease_no + 1,
      next_try_at = now() + make_interval(secs => %(lease_s)s)
    FROM ready l WHERE y.id = l.id AND l.wanted
    RETURNING y.id, y.lease_no, y.tries, y.event_id, y.endpoint_id
  )
SELECT y.id, y.lease_no, y.tries, v.id, v.run_id, v.type, v.body, w.id, w.workspace_id, w.url,
  w.format, w.include_output, encode(w.headers, 'base64'), {sealed_secrets("w.id")}::text
FROM mine y JOIN events v ON v.id = y.event_id JOIN webhook_endpoints w ON w.id = y.endpoint_id
"""

_secrets = msgspec.json.Decoder(list[tuple[str, str]])


async def claim_due(store: Store, *, limit: int, lease_s: float) -> list[DueDelivery]:
    """Lease deliveries whose time has come, the longest due first.

    What is due to an endpoint that was disabled or deleted meanwhile is canceled instead.
    """
    rows = await store.fetch(_CLAIM, {"limit": limit, "lease_s": lease_s})
    names = DueDelivery.__struct_fields__
    return [
        msgspec.convert(
            dict(zip(names, (*row[:-1], _secrets.decode(row[-1])), strict=True)), DueDelivery
        )
        for row in rows
    ]


class Try(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request that was made, and what follows from it.

    `status` is `succeeded`, `exhausted`, `canceled`, or `pending` with the next try after `wait_s`.
    `lease_no` fences off a sender that was too slow.
    """

    delivery_id: str
    lease_no: int
    status: str
    started_at: str
    duration_ms: int
    outcome: str
    wait_s: float = 0
    status_code: int | None = None
    excerpt: str = ""
    address: str | None = None


_RECORD = """
WITH item AS MATERIALIZED (SELECT * FROM json_to_recordset(%(items)s::json) AS x(
    delivery_id uuid, lease_no int, status text, started_at timestamptz, duration_ms int,
    outcome text, wait_s float8, status_code int, excerpt text, address text)),
  held AS MATERIALIZED (
    SELECT y.id FROM deliveries y JOIN item i ON y.id = i.delivery_id
    WHERE y.status = 'pending' AND y.lease_no = i.lease_no ORDER BY y.id FOR UPDATE OF y
  ),
  moved AS (
    UPDATE deliveries y SET status = i.status, tries = y.tries + 1, lease_no = y.lease_no + 1,
      next_try_at = now() + make_interval(secs => coalesce(i.wait_s, 0)),
      finished_at = CASE WHEN i.status <> 'pending' THEN now() END
    FROM item i JOIN held h ON h.id = i.delivery_id
    WHERE y.id = i.delivery_id AND y.status = 'pending' AND y.lease_no = i.lease_no
    RETURNING y.id
  )
INSERT INTO delivery_tries
  (delivery_id, number, started_at, duration_ms, status_code, outcome, excerpt, address)
SELECT m.id,
  1 + coalesce((SELECT max(t.number) FROM delivery_tries t WHERE t.delivery_id = m.id), 0),
  i.started_at, i.duration_ms, i.status_code, i.outcome, coalesce(i.excerpt, ''), i.address
FROM item i JOIN moved m ON m.id = i.delivery_id RETURNING delivery_id
"""


async def record(store: Store, tries: Sequence[Try]) -> list[bool]:
    """Write tries down; `False` where the lease was over: passed on, or used by this very try."""
    rows = await store.fetch(_RECORD, {"items": msgspec.json.encode(tries).decode()})
    written = {str(row[0]) for row in rows}
    return [made.delivery_id in written for made in tries]
