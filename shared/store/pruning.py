"""What ended long enough ago: contents are erased, runs and all that belongs to them deleted.

An environment says how long, else its workspace, else the settings. Nothing is done to a run with
a webhook that is still to be delivered, and none is deleted whose cost is still to be settled: that
goes by its attempts. A run that goes takes its contents along, so these stay no longer than the
run. Each statement is a transaction for one batch: cut off, it is simply repeated.
"""

from collections.abc import Mapping

import msgspec

from shared.store.database import Store
from shared.store.ending import ERASED, event_body
from shared.store.run_json import EVENT_BYTES, EVENT_RUN, EVENT_RUN_SMALL, JOINS
from shared.store.tallying import ADDED, CALL


class Kept(msgspec.Struct, frozen=True):
    """For how many days contents and runs stay where nobody says otherwise; `None`: for ever."""

    contents_days: int | None
    runs_days: int | None


_CONTENTS = "coalesce(e.retain_contents_days, w.retain_contents_days, %(contents)s::int)"
_RUNS = "coalesce(e.retain_runs_days, w.retain_runs_days, %(runs)s::int)"
_SETTLED = """NOT EXISTS (SELECT 1 FROM events v JOIN deliveries d ON d.event_id = v.id
    WHERE v.run_id = r.id AND d.status = 'pending')"""
_PAID = """NOT EXISTS (SELECT 1 FROM holds h WHERE h.run_id = r.id AND h.settled_at IS NULL)"""

# What a call cost outlives its run, once it was added up.
_TALLIED = """NOT EXISTS (SELECT 1 FROM attempts a LEFT JOIN usage_marks m
    ON m.workspace_id = a.workspace_id WHERE a.run_id = r.id
      AND (m.until IS NULL OR a.started_at >= m.until))"""

_FINAL = f"{_PAID} AND {_TALLIED}"


def _due(days: str, *states: str) -> str:
    """The CTE `due`: runs that ended so many days ago, of every environment, locked."""
    found = " UNION ALL ".join(
        f"""(SELECT l.* FROM old o CROSS JOIN LATERAL (
      SELECT r.id, r.workspace_id, r.thread_id, r.channel, r.turn FROM runs r
      WHERE r.environment_id = o.id AND {state} AND r.finished_at <= o.until AND {_SETTLED}
      ORDER BY r.finished_at LIMIT %(limit)s FOR UPDATE OF r SKIP LOCKED) AS l LIMIT %(limit)s)"""
        for state in states
    )
    return f"""
  old AS MATERIALIZED (
    SELECT e.id, now() - make_interval(days => {days}) AS until
    FROM environments e JOIN workspaces w ON w.id = e.workspace_id WHERE {days} IS NOT NULL
  ),
  due AS MATERIALIZED ({found})"""


# A crash that undoes the last batch does no harm, and nobody else's commit waits for its flush.
_UNHURRIED = "set_config('synchronous_commit', 'off', true)"
_ERASED_BEFORE = "r.contents_erased_at IS NOT NULL"
_UNERASED = "r.finished_at IS NOT NULL AND r.contents_erased_at IS NULL"


def _messages(runs: str) -> str:
    return f"""DELETE FROM messages m USING {runs} r WHERE m.workspace_id = r.workspace_id
      AND m.thread_id = r.thread_id AND m.channel = r.channel AND m.turn = r.turn
      AND m.run_id = r.id"""


# The places that a run's texts get to: its row, its attempts, its thread, its event, the answers of
# receivers. A message's hash is as telling as a short message. An attempt that was lost, or never
# closed, may still be answered: what is written here keeps that answer's texts out.
_ERASE = f"""
WITH {_due(f"least({_CONTENTS}, {_RUNS})", _UNERASED)},
  erased AS (
    UPDATE runs r SET contents_erased_at = now(), inputs = 'null', messages = NULL,
      messages_sha256 = NULL, output = NULL, transcript = NULL, flow = NULL,
      last_error = CASE WHEN r.last_error IS NOT NULL THEN '{ERASED}' END,
      error_message = CASE WHEN r.error_origin IN ('provider', 'template') THEN '{ERASED}'
        ELSE r.error_message END
    FROM due WHERE r.id = due.id RETURNING r.*
  ),
  attempt AS (
    UPDATE attempts a SET late_output = NULL, verbatim = NULL,
      error_message =
      CASE WHEN a.error_message IS NOT NULL OR a.outcome IS NULL THEN '{ERASED}' END
    FROM due WHERE a.run_id = due.id AND (a.late_output IS NOT NULL OR a.verbatim IS NOT NULL
      OR a.error_message IS NOT NULL OR a.outcome IS NULL)
  ),
  message AS ({_messages("due")}),
  told AS MATERIALIZED (
    SELECT r.*, v.id AS event_id FROM erased r JOIN events v ON v.run_id = r.id
  ),
  bodies AS MATERIALIZED (
    SELECT r.event_id, CASE WHEN octet_length(x.body) <= {EVENT_BYTES} THEN x.body
      ELSE {event_body(EVENT_RUN_SMALL)} END AS body
    FROM told r {JOINS} CROSS JOIN LATERAL (SELECT {event_body(EVENT_RUN)} AS body OFFSET 0) AS x
  ),
  event AS (UPDATE events y SET body = b.body FROM bodies b WHERE y.id = b.event_id),
  excerpt AS (
    UPDATE delivery_tries t SET excerpt = ''
    FROM told b JOIN deliveries d ON d.event_id = b.event_id
    WHERE t.delivery_id = d.id AND t.excerpt <> ''
  )
SELECT count(*), {_UNHURRIED} FROM erased
"""

# What was sent again just before a run was locked is seen once its deliveries are, too. Nothing can
# change a call any more whose run goes.
_DELETE = f"""
WITH {_due(_RUNS, f"{_UNERASED} AND {_FINAL}", f"{_ERASED_BEFORE} AND {_FINAL}")},
  told AS MATERIALIZED (SELECT v.id, v.run_id FROM events v JOIN due ON v.run_id = due.id),
  sent AS MATERIALIZED (
    SELECT d.id, d.status, told.run_id FROM deliveries d JOIN told ON d.event_id = told.id
    ORDER BY d.id FOR UPDATE OF d
  ),
  past AS MATERIALIZED (
    SELECT * FROM due WHERE id NOT IN (SELECT run_id FROM sent WHERE status = 'pending')
  ),
  final AS (
    DELETE FROM usage_open o USING past p WHERE o.run_id = p.id RETURNING o.run_id, o.number
  ),
  call AS (
    SELECT {CALL} FROM final f JOIN attempts a ON a.run_id = f.run_id AND a.number = f.number
      JOIN runs r ON r.id = a.run_id
  ),{ADDED},
  tries AS (DELETE FROM delivery_tries t USING sent s JOIN past p ON p.id = s.run_id
    WHERE t.delivery_id = s.id),
  delivery AS (DELETE FROM deliveries d USING sent s JOIN past p ON p.id = s.run_id
    WHERE d.id = s.id),
  event AS (DELETE FROM events v USING told t JOIN past p ON p.id = t.run_id WHERE v.id = t.id),
  attempt AS (DELETE FROM attempts a USING past p WHERE a.run_id = p.id),
  key AS (DELETE FROM idempotency_keys k USING past p WHERE k.run_id = p.id),
  hold AS (DELETE FROM holds h USING past p WHERE h.run_id = p.id),
  message AS ({_messages("past")}),
  run AS (DELETE FROM runs r USING past p WHERE r.id = p.id RETURNING 1)
SELECT count(*), {_UNHURRIED} FROM run
"""

_KEYS = f"""
WITH old AS MATERIALIZED (
    SELECT k.workspace_id, k.operation, k.key FROM idempotency_keys k WHERE k.expires_at < now()
    ORDER BY k.expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
  ),
  gone AS (DELETE FROM idempotency_keys k USING old o WHERE k.workspace_id = o.workspace_id
    AND k.operation = o.operation AND k.key = o.key RETURNING 1)
SELECT count(*), {_UNHURRIED} FROM gone
"""


async def erase(store: Store, kept: Kept, limit: int) -> int:
    """Erase the contents of so many runs; answers of how many."""
    return await _pruned(store, _ERASE, _values(kept) | {"limit": limit})


async def delete(store: Store, kept: Kept, limit: int) -> int:
    """Delete so many runs, or twice as many; answers how many."""
    return await _pruned(store, _DELETE, _values(kept) | {"limit": limit})


async def forget_keys(store: Store, limit: int) -> int:
    """Delete idempotency keys that hold no longer; answers how many."""
    return await _pruned(store, _KEYS, {"limit": limit})


def _values(kept: Kept) -> dict[str, object]:
    return {"contents": kept.contents_days, "runs": kept.runs_days}


async def _pruned(store: Store, statement: str, values: Mapping[str, object]) -> int:
    return int((await store.fetch(statement, values))[0][0])
