"""What time does to waiting runs: they fall due, expire, start on schedule, run out of time."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from shared.domain.states import Lane
from shared.ids import RunId
from shared.store.database import Store
from shared.store.ending import NEXT_TURN, ending
from shared.store.run_json import LIVE_SQL, NO_EARLIER_TURN

LEADER_LOCK = 0x726C7377656570
"""The advisory lock of the one process that sweeps: "rlsweep" in ASCII."""

_next = msgspec.json.Decoder(tuple[RunId, Lane])


class Due(msgspec.Struct, frozen=True):
    """A run that waits; `due_ms` may lie in the future. `at_us` is its place in the walk.

    `turn_has_come` is false while an earlier turn of its thread lives: whose end rings it.
    """

    run_id: RunId
    lane: Lane
    due_ms: int
    at_us: int
    turn_has_come: bool


# The horizon makes room for runs that are about to fall due; a ring for them is a delayed one.
# Turns are judged outside the limit: inside it a long thread would be walked through in one step.
_DUE = f"""
SELECT r.id, r.priority, ceil(extract(epoch FROM r.available_at) * 1000)::bigint,
  (extract(epoch FROM r.available_at) * 1000000)::bigint, {NO_EARLIER_TURN}
FROM (SELECT * FROM runs d WHERE d.status IN ('queued', 'scheduled') AND d.priority = %(lane)s
    AND d.available_at <= now() + interval '10 seconds'
    AND (d.available_at, d.id) >
      (timestamptz 'epoch' + %(after_us)s * interval '1 microsecond', %(after_id)s)
  ORDER BY d.available_at, d.id LIMIT %(limit)s) AS r
ORDER BY r.available_at, r.id
"""


async def due(store: Store, lane: Lane, after: tuple[int, UUID], limit: int) -> Sequence[Due]:
    """Runs of a lane that are due, in order, behind a keyset position (µs, id)."""
    rows = await store.fetch(
        _DUE, {"lane": lane.value, "after_us": after[0], "after_id": after[1], "limit": limit}
    )
    return [Due(row[0], Lane(row[1]), *row[2:]) for row in rows]


# Of the runs that are due the first that no earlier turn holds up. Those that are held up are
# passed over one by one, so not beyond a thousand of them.
_OLDEST = f"""
SELECT l.lane, extract(epoch FROM now() - x.available_at)::float8
FROM unnest(%(lanes)s::text[]) AS l(lane) CROSS JOIN LATERAL (
  SELECT r.available_at FROM (SELECT d.* FROM runs d
    WHERE d.priority = l.lane AND d.status IN ('queued', 'scheduled') AND d.available_at <= now()
    ORDER BY d.available_at, d.id LIMIT 1000) r
  WHERE {NO_EARLIER_TURN} ORDER BY r.available_at LIMIT 1) x
"""


async def oldest_due_s(store: Store) -> dict[Lane, float]:
    """For how long the run is due that waits longest, of each lane in which one is."""
    rows = await store.fetch(_OLDEST, {"lanes": [lane.value for lane in Lane]})
    return {Lane(lane): age_s for lane, age_s in rows}


_EXPIRE = f"""
WITH held AS MATERIALIZED (
    SELECT r.id FROM runs r WHERE r.status IN ('queued', 'scheduled')
      AND r.expires_at <= now() AND r.started_at IS NULL
    ORDER BY r.id LIMIT 500 FOR UPDATE SKIP LOCKED
  ),
  moved AS (
    UPDATE runs r SET status = 'expired', finished_at = now(), env_vars = NULL,
      status_reason = NULL, error_code = 'expired', error_origin = 'policy',
      error_message = 'The run waited longer than it was allowed to (expiresIn).'
    FROM held h WHERE r.id = h.id AND r.status IN ('queued', 'scheduled')
    RETURNING r.*
  ),
{ending()}
SELECT {NEXT_TURN}::text FROM moved m
"""

_OUT_OF_TIME = f"""
WITH held AS MATERIALIZED (
    SELECT r.id FROM runs r WHERE r.status IN ('queued', 'scheduled')
      AND least(r.ends_at, r.deadline) <= now()
    ORDER BY r.id LIMIT 500 FOR UPDATE SKIP LOCKED
  ),
  moved AS (
    UPDATE runs r SET status = 'failed', finished_at = now(), env_vars = NULL,
      status_reason = NULL, error_code = 'deadline_exceeded', error_origin = 'policy',
      error_message = 'The run was not done by its deadline.'
    FROM held h WHERE r.id = h.id AND r.status IN ('queued', 'scheduled')
    RETURNING r.*
  ),
{ending()}
SELECT {NEXT_TURN}::text FROM moved m
"""

# A scheduled run that touches its thread takes its turn when it falls due.
_START = f"""
WITH held AS MATERIALIZED (
    SELECT r.id, r.workspace_id, r.thread_id, r.channel FROM runs r
    WHERE r.status = 'scheduled' AND r.available_at <= now() AND r.needs_turn
    ORDER BY r.id LIMIT 500 FOR UPDATE SKIP LOCKED
  ),
  turn AS (
    INSERT INTO turns AS t (workspace_id, thread_id, channel, last_turn)
    SELECT workspace_id, thread_id, channel, count(*) FROM held GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (workspace_id, thread_id, channel) DO UPDATE
      SET last_turn = t.last_turn + excluded.last_turn
    RETURNING workspace_id, thread_id, channel, last_turn
  ),
  numbered AS (
    SELECT h.id, t.last_turn - count(*) OVER w + row_number() OVER (PARTITION BY
      h.workspace_id, h.thread_id, h.channel ORDER BY h.id) AS turn
    FROM held h JOIN turn t USING (workspace_id, thread_id, channel)
    WINDOW w AS (PARTITION BY h.workspace_id, h.thread_id, h.channel)
  )
UPDATE runs r SET status = 'queued', turn = n.turn, needs_turn = false FROM numbered n
WHERE r.id = n.id AND r.status IN {LIVE_SQL} RETURNING r.id, r.priority
"""


async def expire(store: Store) -> tuple[int, list[tuple[RunId, Lane]]]:
    """End runs that waited too long; answers how many, and turns that may start now."""
    return await _end(store, _EXPIRE)


async def end_overdue(store: Store) -> tuple[int, list[tuple[RunId, Lane]]]:
    """End waiting runs whose deadline or duration has passed; answers like `expire`."""
    return await _end(store, _OUT_OF_TIME)


async def start_scheduled(store: Store) -> tuple[int, list[tuple[RunId, Lane]]]:
    """Give due scheduled runs their turn in their thread; answers like `expire`."""
    started = [(RunId(run_id), Lane(lane)) for run_id, lane in await store.fetch(_START, {})]
    return len(started), started


async def _end(store: Store, statement: str) -> tuple[int, list[tuple[RunId, Lane]]]:
    rows = await store.fetch(statement, {})
    return len(rows), [_next.decode(row[0]) for row in rows if row[0] is not None]
