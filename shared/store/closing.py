"""Taking an environment out of use: its live runs are counted, canceled, and asked to stop."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from shared.domain.states import Lane
from shared.ids import RunId
from shared.store import database
from shared.store.database import Store, Tx
from shared.store.ending import NEXT_TURN, ending
from shared.store.tables import EnvironmentRow
from shared.store.tables.base import NOW

_HOLD = "SELECT 1 FROM environments WHERE id = %(environment)s FOR UPDATE"
# Two counts, each through the index of such runs: ended ones are far more.
_LIVE = """
SELECT (SELECT count(*) FROM runs r WHERE r.environment_id = %(environment)s
    AND r.status IN ('queued', 'scheduled')),
  (SELECT count(*) FROM runs r WHERE r.environment_id = %(environment)s AND r.status = 'running')
"""
_CANCEL_WAITING = f"""
WITH held AS MATERIALIZED (
    SELECT r.id FROM runs r WHERE r.environment_id = %(environment)s
      AND r.status IN ('queued', 'scheduled') LIMIT %(limit)s FOR UPDATE SKIP LOCKED
  ),
  moved AS (
    UPDATE runs r SET cancel_requested_at = now(), status = 'canceled', finished_at = now(),
      env_vars = NULL, status_reason = NULL
    FROM held h WHERE r.id = h.id AND r.status IN ('queued', 'scheduled')
    RETURNING r.*
  ),
{ending()}
SELECT m.id, {NEXT_TURN}::text FROM moved m
"""
_STOP_RUNNING = """
WITH held AS MATERIALIZED (
    SELECT r.id FROM runs r WHERE r.environment_id = %(environment)s AND r.status = 'running'
      AND r.cancel_requested_at IS NULL LIMIT %(limit)s FOR UPDATE SKIP LOCKED
  )
UPDATE runs r SET cancel_requested_at = now() FROM held h
WHERE r.id = h.id AND r.status = 'running' AND r.cancel_requested_at IS NULL RETURNING r.id
"""

_next = msgspec.json.Decoder(tuple[RunId, Lane])


async def begin(tx: Tx, row: EnvironmentRow) -> None:
    """Let an environment take no more runs."""
    row.deleting_at = NOW
    await tx.flush()
    await tx.refresh(row)


async def hold(tx: Tx, environment_id: UUID) -> None:
    """Wait for whatever is being written for an environment, and hold off what comes."""
    await database.fetch(tx, _HOLD, {"environment": environment_id})


async def live_runs(tx: Tx, environment_id: UUID) -> tuple[int, int]:
    """How many runs of an environment wait, and how many run."""
    ((waiting, running),) = await database.fetch(tx, _LIVE, {"environment": environment_id})
    return waiting, running


class Canceled(msgspec.Struct, frozen=True):
    """A run that was canceled, and the run of its thread that may start now."""

    run_id: RunId
    next_turn: tuple[RunId, Lane] | None


async def cancel_waiting(store: Store, environment_id: UUID, limit: int) -> Sequence[Canceled]:
    """Cancel so many waiting runs, but none that somebody is just changing."""
    rows = await store.fetch(_CANCEL_WAITING, {"environment": environment_id, "limit": limit})
    return [Canceled(run_id, _next.decode(turn) if turn else None) for run_id, turn in rows]


async def stop_running(store: Store, environment_id: UUID, limit: int) -> Sequence[RunId]:
    """Ask so many running runs to stop; answers those that were not asked before."""
    rows = await store.fetch(_STOP_RUNNING, {"environment": environment_id, "limit": limit})
    return [RunId(row[0]) for row in rows]
