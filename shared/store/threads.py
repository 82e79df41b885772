"""Threads as the outside sees them, and their end."""

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec
from msgspec import Raw

from shared.domain.paging import Page, Slice
from shared.ids import WorkspaceId
from shared.store import database, paging
from shared.store.database import Store, Tx
from shared.store.paging import Listed
from shared.store.run_json import LIVE_SQL, WITHIN, moment

MAX_CHANNELS = 100
PAGE_BYTES = 1024 * 1024
"""What a page of messages may hold, but for its first one."""

_WITHIN_MESSAGE = """(cardinality(%(within)s::uuid[]) = 0 OR coalesce(m.environment_id,
  (SELECT x.environment_id FROM runs x WHERE x.id = m.run_id)) = ANY(%(within)s))"""
_LIVE = f"""runs r WHERE r.workspace_id = %(workspace)s AND r.thread_id = %(thread)s AND {WITHIN}
  AND ((r.turn IS NOT NULL AND r.status IN {LIVE_SQL})
    OR (r.needs_turn AND r.status = 'scheduled'))"""
_THREAD = f"""
SELECT {moment("h.created_at")}, ARRAY(SELECT e.name FROM environments e
    WHERE e.id = ANY(h.environment_ids)
      AND (cardinality(%(within)s::uuid[]) = 0 OR e.id = ANY(%(within)s)) ORDER BY e.name)
FROM threads h WHERE h.workspace_id = %(workspace)s AND h.id = %(thread)s
  AND h.deleted_at IS NULL
  AND (cardinality(%(within)s::uuid[]) = 0 OR h.environment_ids && %(within)s)
"""
_CHANNELS = f"""
SELECT t.channel, coalesce(l.waiting, 0), coalesce(l.running, 0)
FROM (SELECT channel FROM turns
    WHERE workspace_id = %(workspace)s AND thread_id = %(thread)s
    UNION SELECT r.channel FROM {_LIVE}) AS t
  LEFT JOIN (SELECT r.channel, count(*) FILTER (WHERE r.status <> 'running') AS waiting,
      count(*) FILTER (WHERE r.status = 'running') AS running
    FROM {_LIVE} GROUP BY r.channel) AS l ON l.channel = t.channel
WHERE l.channel IS NOT NULL OR EXISTS (SELECT 1 FROM messages m
  WHERE m.workspace_id = %(workspace)s AND m.thread_id = %(thread)s AND m.channel = t.channel
    AND {_WITHIN_MESSAGE})
ORDER BY t.channel LIMIT %(limit)s
"""


class Channel(msgspec.Struct, frozen=True):
    """A channel with something to remember, or with runs that will have."""

    name: str
    waiting: int
    running: int


class Found(msgspec.Struct, frozen=True):
    """A thread: RFC 3339 moment, names of environments, its first channels by name."""

    created_at: str
    environments: list[str]
    channels: list[Channel]


async def find(
    store: Store, workspace_id: WorkspaceId, thread_id: UUID, within: Collection[UUID] = ()
) -> Found | None:
    """A thread with up to `MAX_CHANNELS` + 1 channels, as far as some environments know it."""
    values = {"workspace": workspace_id, "thread": thread_id, "within": list(within)}
    rows = await store.fetch(_THREAD, values)
    if not rows:
        return None
    channels = await store.fetch(_CHANNELS, values | {"limit": MAX_CHANNELS + 1})
    return Found(rows[0][0], rows[0][1], [Channel(*row) for row in channels])


# A place in a channel is no UUID, but fits into one: lists are walked by those.
_PLACE_BITS = 64
_PAGE = """
SELECT m.turn, m.position, CASE WHEN p.before < %(bytes)s THEN json_build_object(
  'role', m.role, 'content', m.content, 'turn', m.turn, 'channel', m.channel, 'run', m.run_id,
  'environment', e.name, 'createdAt', {created}) END::text
FROM (SELECT q.*, sum(octet_length(q.content)) OVER places - octet_length(q.content) AS before
    FROM (SELECT m.* FROM messages m WHERE m.workspace_id = %(workspace)s
        AND m.thread_id = %(thread)s AND m.channel = %(channel)s AND {conditions}
      ORDER BY m.turn {order}, m.position {order} LIMIT %(limit)s) AS q
    WINDOW places AS (ORDER BY q.turn {order}, q.position {order})) AS p
  JOIN messages m USING (workspace_id, thread_id, channel, turn, position)
  LEFT JOIN runs r ON r.id = m.run_id LEFT JOIN environments e ON e.id = r.environment_id
ORDER BY m.turn {order}, m.position {order}
"""


async def messages(
    store: Store,
    thread: tuple[WorkspaceId, UUID],
    channel: str,
    page: Page,
    within: Collection[UUID] = (),
) -> Slice[Listed]:
    """What a channel remembers, newest first; fewer than asked for where they are long."""
    backwards, edge = page.before is not None, page.before or page.after
    conditions = [_WITHIN_MESSAGE]
    values: dict[str, object] = {"workspace": thread[0], "thread": thread[1], "channel": channel}
    values |= {"within": list(within), "bytes": PAGE_BYTES, "limit": page.limit + 1}
    if edge is not None:
        sign = ">" if backwards else "<"
        conditions.append(f"(m.turn, m.position) {sign} (%(turn)s, %(position)s)")
        turn, position = divmod(edge.int, 1 << _PLACE_BITS)
        values |= {"turn": turn, "position": position}
    statement = _PAGE.format(
        created=moment("r.finished_at"),
        conditions=" AND ".join(conditions),
        order="ASC" if backwards else "DESC",
    )
    rows = await store.fetch(statement, values)
    shown = [
        Listed(str(UUID(int=turn << _PLACE_BITS | position)), Raw(text.encode()))
        for turn, position, text in rows
        if text is not None
    ]
    short = msgspec.structs.replace(page, limit=min(page.limit, len(shown)))
    more = len(rows) > short.limit
    return msgspec.structs.replace(paging.cut(shown, short), more=more)


_HOLD = """
SELECT h.environment_ids FROM threads h WHERE h.workspace_id = %(workspace)s
  AND h.id = %(thread)s AND h.deleted_at IS NULL FOR NO KEY UPDATE
"""
_COUNT_LIVE = f"""
SELECT count(*) FILTER (WHERE r.status <> 'running'), count(*) FILTER (WHERE r.status = 'running')
FROM {_LIVE}
"""
_ERASE = """
WITH gone AS (
    DELETE FROM messages m WHERE m.ctid = ANY(ARRAY(SELECT o.ctid FROM messages o
      WHERE o.workspace_id = %(workspace)s AND o.thread_id = %(thread)s LIMIT %(limit)s))
    RETURNING 1
  )
SELECT count(*) FROM gone
"""
_END = """
UPDATE threads SET deleted_at = now(), environment_ids = '{}'
WHERE workspace_id = %(workspace)s AND id = %(thread)s RETURNING id
"""


async def hold(tx: Tx, workspace_id: WorkspaceId, thread_id: UUID) -> Sequence[UUID] | None:
    """Keep submissions off a thread till commit; answers the environments that used it."""
    rows = await database.fetch(tx, _HOLD, {"workspace": workspace_id, "thread": thread_id})
    return rows[0][0] if rows else None


async def live_runs(tx: Tx, workspace_id: WorkspaceId, thread_id: UUID) -> tuple[int, int]:
    """How many runs that touch the thread's memory wait, and how many run."""
    values = {"workspace": workspace_id, "thread": thread_id, "within": []}
    ((waiting, running),) = await database.fetch(tx, _COUNT_LIVE, values)
    return waiting, running


async def erase(tx: Tx, workspace_id: WorkspaceId, thread_id: UUID, limit: int) -> int:
    """Delete up to so many messages; answers how many there were."""
    values = {"workspace": workspace_id, "thread": thread_id, "limit": limit}
    ((count,),) = await database.fetch(tx, _ERASE, values)
    return int(count)


async def end(tx: Tx, workspace_id: WorkspaceId, thread_id: UUID) -> None:
    """Let the thread be as if it had never been; a submission that names it begins it anew."""
    await database.fetch(tx, _END, {"workspace": workspace_id, "thread": thread_id})
