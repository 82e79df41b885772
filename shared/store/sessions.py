"""Worker sessions and what happens to the runs of those that are gone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from shared.domain.states import Lane
from shared.ids import RunId, SessionId
from shared.store.database import Parameters, Store
from shared.store.ending import NEXT_TURN, ending

_OPEN = """
INSERT INTO worker_sessions (id, host, pid, lease_expires_at)
VALUES (%(id)s, %(host)s, %(pid)s, now() + make_interval(secs => %(lease_s)s)) RETURNING now()
"""
# Two statements: whoever locks the table of runs must not keep the workers from renewing.
_RENEW = """
UPDATE worker_sessions SET lease_expires_at = now() + make_interval(secs => %(lease_s)s)
WHERE id = %(id)s AND reaped_at IS NULL RETURNING now()
"""
_CANCELED = """
SELECT id FROM runs
WHERE session_id = %(id)s AND status = 'running' AND cancel_requested_at IS NOT NULL
"""
_CLOSE = """
DELETE FROM worker_sessions s WHERE s.id = %(id)s AND NOT EXISTS (
  SELECT 1 FROM runs r WHERE r.session_id = s.id AND r.status = 'running') RETURNING s.id
"""


async def open_session(
    store: Store, session: SessionId, *, host: str, pid: int, lease_s: float
) -> datetime:
    """Enter this process among the workers; answers the database's time."""
    opened = {"id": session, "host": host, "pid": pid, "lease_s": lease_s}
    rows = await store.fetch(_OPEN, opened)
    at: datetime = rows[0][0]
    return at


async def renew(
    through: AsyncConnection[Any] | Store, session: SessionId, *, lease_s: float
) -> datetime | None:
    """Prolong the lease; answers the database's time.

    `None` means that the session was reaped: its runs belong to others now.
    """
    rows = await _rows(through, _RENEW, {"id": session, "lease_s": lease_s})
    return rows[0][0] if rows else None


async def canceled(through: AsyncConnection[Any] | Store, session: SessionId) -> list[RunId]:
    """The runs of a session whose cancellation was asked for."""
    return [row[0] for row in await _rows(through, _CANCELED, {"id": session})]


async def _rows(
    through: AsyncConnection[Any] | Store, statement: str, parameters: Parameters
) -> Sequence[TupleRow]:
    if isinstance(through, Store):
        return await through.fetch(statement, parameters)
    cursor = await through.execute(statement, parameters)
    return await cursor.fetchall()


async def close_session(store: Store, session: SessionId) -> None:
    """Leave in good order; a session that still holds runs stays for the reaper."""
    await store.fetch(_CLOSE, {"id": session})


class Reaped(msgspec.Struct, frozen=True):
    """A run taken from a dead worker: queued again (ring it), or over."""

    run_id: RunId
    status: str
    lane: Lane
    next_turn: tuple[RunId, Lane] | None
    error_code: str | None = None


# A server that has just started, or that this process has just reached again, says nothing about
# the workers: they could not renew either. The caller watches its own reconnects.
_MARK_DEAD = """
UPDATE worker_sessions SET reaped_at = now() WHERE id IN (
  SELECT id FROM worker_sessions WHERE reaped_at IS NULL AND lease_expires_at < now()
    AND pg_postmaster_start_time() < now() - make_interval(secs => %(lease_s)s)
  ORDER BY id FOR UPDATE SKIP LOCKED) RETURNING id
"""

# An attempt that was announced after this statement began is not to be seen yet, only counted on
# the locked row: such a run is left for the next time, or its call would pass for one never made.
_REAP = f"""
WITH held AS MATERIALIZED (
    SELECT r.id, r.claim_no, r.attempts, r.calls, r.max_attempts, r.deaths, r.on_unknown_outcome
    FROM runs r JOIN worker_sessions s ON s.id = r.session_id
    WHERE r.status = 'running' AND s.reaped_at IS NOT NULL
    ORDER BY r.id LIMIT 500 FOR UPDATE OF r SKIP LOCKED
  ),
  seen AS (
    SELECT h.*, CASE WHEN a.claim_no = h.claim_no AND a.outcome IS NULL THEN a.number END AS number
    FROM held h LEFT JOIN attempts a ON a.run_id = h.id AND a.number = h.attempts
    WHERE h.attempts = 0 OR a.number IS NOT NULL
  ),
  aim AS (
    SELECT s.id, s.number, CASE
        WHEN s.deaths + 1 >= %(poison)s THEN 'worker_crashed_repeatedly'
        WHEN s.number IS NOT NULL AND s.on_unknown_outcome = 'fail' THEN 'outcome_unknown'
        WHEN s.number IS NOT NULL AND s.calls >= s.max_attempts THEN 'attempts_exhausted'
      END AS failure
    FROM seen s
  ),
  moved AS (
    UPDATE runs r SET session_id = NULL, deaths = r.deaths + 1,
      status = CASE WHEN i.failure IS NOT NULL THEN 'failed'
        WHEN r.cancel_requested_at IS NOT NULL THEN 'canceled' ELSE 'queued' END,
      finished_at = CASE WHEN i.failure IS NOT NULL OR r.cancel_requested_at IS NOT NULL
        THEN now() END,
      env_vars = CASE WHEN i.failure IS NULL AND r.cancel_requested_at IS NULL
        THEN r.env_vars END,
      available_at = now(), status_reason = NULL,
      error_code = i.failure,
      error_message = CASE i.failure
        WHEN 'worker_crashed_repeatedly' THEN 'The worker died each time it ran this.'
        WHEN 'outcome_unknown' THEN
          'The worker died during the provider call; whether it was carried out is unknown.'
        WHEN 'attempts_exhausted' THEN 'The worker died during the last allowed call.' END,
      error_origin = CASE WHEN i.failure IS NOT NULL THEN 'platform' END,
      last_error = CASE WHEN i.number IS NULL THEN r.last_error
        ELSE 'The worker was lost during the call.' END
    FROM aim i WHERE r.id = i.id AND r.status = 'running'
    RETURNING r.*
  ),
  lost AS (
    UPDATE attempts a SET outcome = 'lost', billed = 'unknown', finished_at = now(),
      error_code = 'worker_lost', error_message = 'The worker was lost during the call.'
    FROM moved m WHERE a.run_id = m.id AND a.claim_no = m.claim_no AND a.outcome IS NULL
  ),
{ending()}
SELECT m.id, m.status, m.priority, m.error_code, {NEXT_TURN}::text FROM moved m
"""

_FORGET = """
DELETE FROM worker_sessions s WHERE s.reaped_at < now() - interval '1 hour' AND NOT EXISTS (
  SELECT 1 FROM runs r WHERE r.session_id = s.id AND r.status = 'running') RETURNING s.id
"""

_next = msgspec.json.Decoder(tuple[RunId, Lane])


async def mark_dead(store: Store, *, lease_s: float) -> list[UUID]:
    """Close the sessions whose lease is gone; from then on they cannot come back."""
    return [row[0] for row in await store.fetch(_MARK_DEAD, {"lease_s": lease_s})]


async def reap(store: Store, *, poison_deaths: int) -> list[Reaped]:
    """Take up to 500 runs from closed sessions; call again while the answer is full."""
    rows = await store.fetch(_REAP, {"poison": poison_deaths})
    return [
        Reaped(
            run_id=run_id,
            status=status,
            lane=Lane(lane),
            error_code=error_code,
            next_turn=_next.decode(following) if following else None,
        )
        for run_id, status, lane, error_code, following in rows
    ]


async def forget(store: Store) -> None:
    """Delete sessions that ended an hour ago."""
    await store.fetch(_FORGET, {})
