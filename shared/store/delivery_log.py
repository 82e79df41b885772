"""What is shown of deliveries: JSON that PostgreSQL writes, with every request that was made."""

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec

from shared.domain.paging import Page, Slice
from shared.ids import DeliveryId, EndpointId, WorkspaceId
from shared.store import paging
from shared.store.database import Store
from shared.store.paging import JsonList, Listed
from shared.store.run_json import moment

_ATTEMPT = f"""json_build_object('number', t.number, 'startedAt', {moment("t.started_at")},
    'durationMs', t.duration_ms, 'status', t.status_code, 'outcome', t.outcome,
    'excerpt', t.excerpt, 'address', t.address)"""
_SUMMARY = f"""'id', y.id, 'eventId', y.event_id, 'type', v.type, 'run', v.run_id,
  'environment', e.name, 'webhook', y.endpoint_id, 'url', w.url, 'status', y.status,
  'tries', y.tries, 'createdAt', {moment("y.created_at")},
  'finishedAt', {moment("y.finished_at")},
  'nextTryAt', CASE WHEN y.status = 'pending' THEN {moment("y.next_try_at")} END"""
_LISTED = f"""json_build_object({_SUMMARY}, 'lastAttempt', (SELECT {_ATTEMPT}
  FROM delivery_tries t WHERE t.delivery_id = y.id ORDER BY t.number DESC LIMIT 1))"""
_WHOLE = f"""json_build_object({_SUMMARY}, 'attempts', (
  SELECT coalesce(json_agg({_ATTEMPT} ORDER BY t.number), '[]'::json)
  FROM delivery_tries t WHERE t.delivery_id = y.id))"""
_JOINS = """JOIN events v ON v.id = y.event_id JOIN webhook_endpoints w ON w.id = y.endpoint_id
  LEFT JOIN environments e ON e.id = v.environment_id"""
_LIST = JsonList("deliveries", "y", _LISTED, _JOINS)


class FoundDelivery(msgspec.Struct, frozen=True):
    """A delivery's JSON, and the environments of its endpoint: none mean all."""

    json: msgspec.Raw
    environment_ids: Sequence[UUID]


_OF_RUN = f"""
SELECT {_WHOLE}::text FROM deliveries y {_JOINS}
WHERE v.workspace_id = %(workspace)s AND v.run_id = %(run)s ORDER BY y.id
"""
_ONE = f"""
SELECT {_WHOLE}::text, w.environment_ids FROM deliveries y {_JOINS}
WHERE y.workspace_id = %(workspace)s AND y.id = %(delivery)s
"""


async def of_run(store: Store, workspace_id: WorkspaceId, run_id: UUID) -> list[msgspec.Raw]:
    """The deliveries of a run with their attempts."""
    rows = await store.fetch(_OF_RUN, {"workspace": workspace_id, "run": run_id})
    return [_raw(text) for (text,) in rows]


async def find(
    store: Store, workspace_id: WorkspaceId, delivery_id: DeliveryId
) -> FoundDelivery | None:
    """One delivery with its attempts."""
    rows = await store.fetch(_ONE, {"workspace": workspace_id, "delivery": delivery_id})
    return None if not rows else FoundDelivery(_raw(rows[0][0]), rows[0][1])


async def of_endpoint(
    store: Store, endpoint_id: EndpointId, statuses: Collection[str], page: Page
) -> Slice[Listed]:
    """The deliveries to an endpoint, newest first, each with its last attempt only."""
    conditions = ["y.endpoint_id = %(endpoint)s"]
    if statuses:
        conditions.append("y.status = ANY(%(statuses)s)")
    values = {"endpoint": endpoint_id, "statuses": list(statuses)}
    return await paging.fetch_json(store, _LIST, conditions, values, page)


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())
