"""Webhook deliveries: found endpoint by endpoint, leased by moving their time, settled with a try.

An endpoint that fails has a row of its own in `failing_endpoints`, written with the tries; so its
pause holds for every worker. One that answers well costs nothing here.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from shared.ids import DeliveryId, EndpointId
from shared.settings import Settings
from shared.store.database import Store
from shared.store.ending import DueDelivery, sealed_secrets

FIRST = EndpointId(UUID(int=0))
ENDPOINTS = 1000
CANCELED_AT_ONCE = 1000


class Claim(msgspec.Struct, frozen=True):
    """What one look found. The next one begins behind `after`; `more`: it should come at once."""

    found: Sequence[DueDelivery]
    after: EndpointId
    more: bool


# A walk from endpoint to endpoint along the index of what is pending, so that a hundred thousand
# deliveries to one of them cost no more than one. Ordered by both columns: no other index has
# that order, and one by endpoint alone would lead through its whole past.
_CLAIM = f"""
WITH RECURSIVE place AS (
    (SELECT y.endpoint_id FROM deliveries y
     WHERE y.status = 'pending' AND y.endpoint_id > %(after)s
     ORDER BY y.endpoint_id, y.next_try_at LIMIT 1)
    UNION ALL
    SELECT (SELECT y.endpoint_id FROM deliveries y
      WHERE y.status = 'pending' AND y.endpoint_id > p.endpoint_id
      ORDER BY y.endpoint_id, y.next_try_at LIMIT 1)
    FROM place p WHERE p.endpoint_id IS NOT NULL
  ),
  probed AS MATERIALIZED (
    SELECT f.endpoint_id FROM failing_endpoints f
    WHERE f.paused_until <= now() AND coalesce(f.probe_until, f.paused_until) <= now()
    FOR UPDATE SKIP LOCKED
  ),
  stop AS MATERIALIZED (
    SELECT w.id, w.deleted_at IS NULL AND (w.disabled_at IS NULL
        OR coalesce(w.disabled_reason, '') = 'environment_deleted') AS wanted,
      CASE WHEN f.paused_until IS NULL THEN coalesce(b.room, %(room)s)
        WHEN f.endpoint_id IN (SELECT endpoint_id FROM probed) THEN 1 ELSE 0 END AS room
    FROM (SELECT endpoint_id FROM place WHERE endpoint_id IS NOT NULL LIMIT {ENDPOINTS}) p
      JOIN webhook_endpoints w ON w.id = p.endpoint_id
      LEFT JOIN failing_endpoints f ON f.endpoint_id = w.id
      LEFT JOIN unnest(%(busy)s::uuid[], %(rooms)s::int[]) AS b(id, room) ON b.id = w.id
  ),
  unwanted AS (
    UPDATE deliveries SET status = 'canceled', finished_at = now()
    WHERE id IN (SELECT y.id FROM (SELECT * FROM stop WHERE NOT wanted) s
      CROSS JOIN LATERAL (
        SELECT y.id FROM deliveries y WHERE y.endpoint_id = s.id AND y.status = 'pending'
        ORDER BY y.next_try_at LIMIT {CANCELED_AT_ONCE} FOR UPDATE SKIP LOCKED) y
      LIMIT {CANCELED_AT_ONCE})
    RETURNING id
  ),
  ready AS MATERIALIZED (
    SELECT y.id FROM (SELECT * FROM stop WHERE wanted AND room > 0 ORDER BY id) s
      CROSS JOIN LATERAL (
        SELECT y.id FROM deliveries y WHERE y.endpoint_id = s.id AND y.status = 'pending'
          AND y.next_try_at <= now()
        ORDER BY y.next_try_at LIMIT s.room FOR UPDATE SKIP LOCKED) y
    LIMIT %(limit)s
  ),
  mine AS (
    UPDATE deliveries y SET lease_no = y.lease_no + 1,
      next_try_at = now() + make_interval(secs => %(lease_s)s)
    FROM ready l WHERE y.id = l.id
    RETURNING y.id, y.lease_no, y.tries, y.event_id, y.endpoint_id
  ),
  probing AS (
    UPDATE failing_endpoints f SET probe_until = now() + make_interval(secs => %(lease_s)s)
    FROM mine m WHERE f.endpoint_id = m.endpoint_id AND f.paused_until IS NOT NULL
  )
SELECT x.stops, x.last, x.canceled, y.id, y.lease_no, y.tries, v.id, v.run_id, v.type, v.body,
  w.id, w.workspace_id, w.url, w.format, w.include_output, encode(w.headers, 'base64'),
  {sealed_secrets("w.id")}::text, r.traceparent
FROM (SELECT (SELECT count(*) FROM stop) AS stops,
    (SELECT id FROM stop ORDER BY id DESC LIMIT 1) AS last,
    (SELECT count(*) FROM unwanted) AS canceled) x
  LEFT JOIN (mine y JOIN events v ON v.id = y.event_id
    JOIN webhook_endpoints w ON w.id = y.endpoint_id LEFT JOIN runs r ON r.id = v.run_id) ON true
"""
_COUNTS = 3

_secrets = msgspec.json.Decoder(tuple[tuple[UUID, str], ...])


async def claim_due(
    store: Store,
    *,
    limit: int,
    lease_s: float,
    room: int = 10,
    rooms: Mapping[EndpointId, int] | None = None,
    after: EndpointId = FIRST,
) -> Claim:
    """Lease deliveries whose time has come, of each endpoint the longest due first.

    An endpoint gets as many as `rooms` says, else `room`; one that is paused none, and one probe
    when its pause is over. Whatever waits for one that was disabled or deleted is canceled;
    one whose environments are deleted gets what they left: the ends of their last runs.
    """
    given = rooms or {}
    rows = await store.fetch(
        _CLAIM,
        {
            "limit": limit,
            "lease_s": lease_s,
            "room": room,
            "busy": list(given),
            "rooms": list(given.values()),
            "after": after,
        },
    )
    stops, last, canceled = rows[0][:_COUNTS]
    found = [_due(row[_COUNTS:]) for row in rows if row[_COUNTS] is not None]
    if len(found) >= limit:
        return Claim(found, max(due.endpoint_id for due in found), more=True)
    more = stops >= ENDPOINTS or canceled >= CANCELED_AT_ONCE
    return Claim(found, last if stops >= ENDPOINTS else FIRST, more=more)


def _due(row: Sequence[object]) -> DueDelivery:
    *fields, secrets, traceparent = row
    values = (*fields, _secrets.decode(str(secrets)), traceparent)
    return msgspec.convert(
        dict(zip(DueDelivery.__struct_fields__, values, strict=True)), DueDelivery
    )


_PAUSED = "SELECT endpoint_id FROM failing_endpoints WHERE paused_until IS NOT NULL"


async def paused(store: Store) -> set[EndpointId]:
    """Endpoints that get nothing but probes."""
    return {EndpointId(row[0]) for row in await store.fetch(_PAUSED, {})}


_PUT_BACK = """
WITH held AS MATERIALIZED (
    SELECT y.id, y.lease_no FROM deliveries y
      JOIN unnest(%(ids)s::uuid[], %(leases)s::int[]) AS i(id, lease_no) ON y.id = i.id
    WHERE y.status = 'pending' AND y.lease_no = i.lease_no ORDER BY y.id FOR UPDATE OF y
  )
UPDATE deliveries y SET next_try_at = now() FROM held h
WHERE y.id = h.id AND y.status = 'pending' AND y.lease_no = h.lease_no
"""


async def put_back(store: Store, leased: Sequence[tuple[DeliveryId, int]]) -> None:
    """Let others, or us later, send what we hold (id and `lease_no`) and have not tried."""
    ids, leases = zip(*leased, strict=True)
    await store.execute(_PUT_BACK, {"ids": list(ids), "leases": list(leases)})


class Try(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request that was made, and what follows from it.

    `status` is `succeeded`, `exhausted`, or `pending` with the next try after `wait_s`. `lease_no`
    fences off a sender that was too slow. `blamed`: a failure that the endpoint has to answer for.
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
    blamed: bool = False


class Recorded(msgspec.Struct, frozen=True):
    """What became of a try, and of its endpoint.

    `written` is false where the lease was over: passed on, or used by this very try. `paused`: the
    endpoint gets nothing for a while. `hopeless`: it has failed for so long that it is to be
    disabled.
    """

    written: bool
    paused: bool = False
    hopeless: bool = False


# A success whose delivery was canceled meanwhile is told as what it is.
# Looked up by id for the reason given at `held_claims`.
_MOVE = """
WITH item AS MATERIALIZED (SELECT * FROM json_to_recordset(%(items)s::json) AS x(
    delivery_id uuid, lease_no int, status text, started_at timestamptz, duration_ms int,
    outcome text, wait_s float8, status_code int, excerpt text, address text, blamed bool)),
  held AS MATERIALIZED (
    SELECT l.id FROM (SELECT * FROM item ORDER BY delivery_id) AS i CROSS JOIN LATERAL (
      SELECT y.id FROM deliveries y WHERE y.id = i.delivery_id
        AND y.status IN ('pending', 'canceled') AND y.lease_no = i.lease_no FOR UPDATE) AS l
  ),
  moved AS (
    UPDATE deliveries y SET tries = y.tries + 1, lease_no = y.lease_no + 1,
      status = CASE WHEN y.status = 'canceled' AND i.status <> 'succeeded' THEN y.status
        ELSE i.status END,
      next_try_at = now() + make_interval(secs => coalesce(i.wait_s, 0)),
      finished_at = CASE WHEN i.status <> 'pending' THEN now() ELSE y.finished_at END
    FROM item i JOIN held h ON h.id = i.delivery_id
    WHERE y.id = ANY(ARRAY(SELECT id FROM held)) AND y.id = i.delivery_id
      AND y.status IN ('pending', 'canceled') AND y.lease_no = i.lease_no
    RETURNING y.id, y.endpoint_id, y.workspace_id, y.status
  ),
  logged AS (
    INSERT INTO delivery_tries
      (delivery_id, number, started_at, duration_ms, status_code, outcome, excerpt, address)
    SELECT m.id, coalesce((SELECT max(t.number) FROM delivery_tries t
        WHERE t.delivery_id = m.id), 0) + 1,
      i.started_at, i.duration_ms, i.status_code, i.outcome, coalesce(i.excerpt, ''), i.address
    FROM item i JOIN moved m ON m.id = i.delivery_id
  ),
"""
_RECORD_NO_FAILURE = f"""{_MOVE}
  healed AS (
    DELETE FROM failing_endpoints WHERE endpoint_id IN (SELECT f.endpoint_id
      FROM failing_endpoints f
      WHERE f.endpoint_id IN (SELECT endpoint_id FROM moved WHERE status = 'succeeded')
      ORDER BY f.endpoint_id FOR UPDATE)
  )
SELECT id, false, false FROM moved
"""
# Failures in the midst of a pause come from requests that were under way when it began, and do not
# make it longer. Counting `known` makes its locks come first, so that batches lock in one order.
_RECORD = f"""{_MOVE}
  judged AS MATERIALIZED (
    SELECT m.endpoint_id, m.workspace_id, bool_or(i.status = 'succeeded') AS well,
      count(*) FILTER (WHERE i.blamed) AS failures
    FROM item i JOIN moved m ON m.id = i.delivery_id GROUP BY 1, 2
  ),
  known AS MATERIALIZED (
    SELECT f.endpoint_id, j.well FROM failing_endpoints f
      JOIN judged j ON j.endpoint_id = f.endpoint_id
    WHERE j.well OR j.failures > 0 ORDER BY f.endpoint_id FOR UPDATE OF f
  ),
  healed AS (
    DELETE FROM failing_endpoints f USING known k WHERE f.endpoint_id = k.endpoint_id AND k.well
  ),
  failing AS (
    INSERT INTO failing_endpoints AS f (endpoint_id, workspace_id, failing_since, failures,
      spaced_failures, spaced_at, pause_s, paused_until)
    SELECT j.endpoint_id, j.workspace_id, now(), j.failures, 1, now(),
      CASE WHEN j.failures >= %(pause_failures)s THEN %(pause_s)s END,
      CASE WHEN j.failures >= %(pause_failures)s
        THEN now() + make_interval(secs => %(pause_s)s) END
    FROM judged j WHERE NOT j.well AND j.failures > 0 AND (SELECT count(*) FROM known) >= 0
    ORDER BY j.endpoint_id
    ON CONFLICT (endpoint_id) DO UPDATE SET failures = f.failures + excluded.failures,
      spaced_failures = f.spaced_failures
        + (f.spaced_at <= now() - make_interval(secs => %(apart_s)s))::int,
      spaced_at = CASE WHEN f.spaced_at <= now() - make_interval(secs => %(apart_s)s)
        THEN now() ELSE f.spaced_at END,
      pause_s = CASE WHEN f.failures + excluded.failures < %(pause_failures)s THEN NULL
        WHEN f.pause_s IS NULL THEN %(pause_s)s
        WHEN f.paused_until > now() THEN f.pause_s
        ELSE least(2 * f.pause_s, %(pause_max_s)s) END,
      paused_until = CASE WHEN f.failures + excluded.failures < %(pause_failures)s THEN NULL
        WHEN f.paused_until > now() THEN f.paused_until
        ELSE now() + make_interval(secs => CASE WHEN f.pause_s IS NULL THEN %(pause_s)s
          ELSE least(2 * f.pause_s, %(pause_max_s)s) END) END,
      probe_until = NULL
    RETURNING endpoint_id, paused_until IS NOT NULL AS paused,
      spaced_failures >= %(disable_failures)s
        AND failing_since <= now() - make_interval(secs => %(disable_s)s) AS hopeless
  )
SELECT m.id, coalesce(f.paused, false), coalesce(f.hopeless, false)
FROM moved m LEFT JOIN failing f ON f.endpoint_id = m.endpoint_id
"""


async def record(store: Store, settings: Settings, tries: Sequence[Try]) -> list[Recorded]:
    """Write tries down, and what they say of their endpoints; answers in their order."""
    rows = await store.fetch(
        _RECORD if any(made.blamed for made in tries) else _RECORD_NO_FAILURE,
        {
            "items": msgspec.json.encode(tries).decode(),
            "pause_failures": settings.webhook_pause_failures,
            "pause_s": settings.webhook_pause_s,
            "pause_max_s": settings.webhook_pause_max_s,
            "disable_failures": settings.webhook_disable_failures,
            "disable_s": settings.webhook_disable_s,
            "apart_s": settings.webhook_disable_apart_s,
        },
    )
    written = {str(row[0]): Recorded(True, *row[1:]) for row in rows}  # noqa: FBT003 (a column)
    nothing = Recorded(written=False)
    return [written.get(made.delivery_id, nothing) for made in tries]


_DISABLE = """
WITH gone AS (
    UPDATE webhook_endpoints w SET disabled_at = now(), disabled_reason = %(reason)s
    WHERE w.id = %(endpoint)s AND w.url = %(url)s
      AND w.disabled_at IS NULL AND w.deleted_at IS NULL RETURNING w.id
  )
DELETE FROM failing_endpoints f USING gone g WHERE f.endpoint_id = g.id
"""


async def disable(store: Store, endpoint_id: EndpointId, url: str, reason: str) -> None:
    """Send nothing more to an endpoint, if this is still its address.

    What waits for it is canceled by the next claims. Enabled again, it begins without a past.
    """
    await store.execute(_DISABLE, {"endpoint": endpoint_id, "url": url, "reason": reason})


# By id, which begins with the moment of creation: no index is needed for it.
_PRUNE = """
WITH old AS MATERIALIZED (
    SELECT y.id, y.event_id FROM deliveries y
    WHERE y.id < (lpad(to_hex((1000 * (extract(epoch FROM now()) - %(kept_s)s))::bigint), 12, '0')
        || repeat('0', 20))::uuid
      AND y.finished_at < now() - make_interval(secs => %(kept_s)s)
    ORDER BY y.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
  ),
  tries AS (DELETE FROM delivery_tries t USING old o WHERE t.delivery_id = o.id),
  pings AS (DELETE FROM events v USING old o WHERE v.id = o.event_id AND v.run_id IS NULL)
DELETE FROM deliveries y USING old o WHERE y.id = o.id
"""


async def prune(store: Store, *, kept_s: float, limit: int) -> int:
    """Forget deliveries that ended so long ago, with their tries and pings; answers how many."""
    return await store.execute(_PRUNE, {"kept_s": kept_s, "limit": limit})
