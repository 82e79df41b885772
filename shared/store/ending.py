"""Every way a run moves on: to its end, or back to the queue. One statement for a whole batch.

A statement that moves runs names its rows `moved`. Those that reached their end get, in the same
transaction, their one event and a delivery for each endpoint that wants it.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec
from msgspec import Raw
from psycopg.rows import TupleRow

from shared.domain.states import Lane
from shared.ids import DeliveryId, EndpointId, EventId, RunId
from shared.store.claiming import held_claims
from shared.store.database import Store
from shared.store.run_json import (
    EVENT_BYTES,
    EVENT_RUN,
    EVENT_RUN_SMALL,
    JOINS,
    LIVE_SQL,
    UUID7,
    WITHIN,
    moment,
)

ERASED = "Erased."
"""What stands in place of an error's text that may have quoted contents."""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says about a run it holds: where it goes, and how its open attempt ended.

    `status` is a terminal one or `queued`. `Raw` fields hold JSON; `attempt` 0 means that no
    provider call belongs to this outcome. `turn` holds the messages a thread is to remember.
    `transcript` holds texts and payloads of tools. `unpriced` says that a call was paid for whose
    price nobody knows: then nobody knows the run's.
    An `output` of a run that is queued again is kept with its attempt only. `account` is the
    workspace that pays for the call, where that is watched.
    """

    run_id: str
    session_id: str
    claim_no: int
    status: str
    attempt: int = 0
    status_reason: str | None = None
    delay_ms: int = 0
    uncounted: int = 0
    model: str | None = None
    output: str | None = None
    incomplete_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_origin: str | None = None
    last_error: str | None = None
    token_usage: Raw | None = None
    cost: Raw | None = None
    cost_nanousd: int | None = None
    unpriced: bool = False
    outcome: str | None = None
    billed: str | None = None
    usage: Raw | None = None
    usage_raw: str | None = None
    verbatim: str | None = None
    attempt_cost: Raw | None = None
    attempt_cost_nanousd: int | None = None
    price_version: str | None = None
    provider_request_id: str | None = None
    attempt_error_code: str | None = None
    attempt_error: str | None = None
    turn: Raw | None = None
    transcript: Raw | None = None
    account: str | None = None


def size_of(outcome: Outcome) -> int:
    """How many characters it keeps in memory, about."""
    return len(outcome.output or "") + len(outcome.verbatim or "")


class DueDelivery(msgspec.Struct, frozen=True):
    """A delivery leased to this worker, with all that is needed to send it."""

    id: DeliveryId
    lease_no: int
    tries: int
    event_id: EventId
    run_id: RunId | None
    event_type: str
    body: str
    endpoint_id: EndpointId
    workspace_id: UUID
    url: str
    format: str
    include_output: bool
    headers: str | None
    secrets: tuple[tuple[UUID, str], ...]
    traceparent: str | None = None


class Moved(msgspec.Struct, frozen=True):
    """What became of one outcome.

    `applied` is false when the claim was not ours any more; `known` is true when the attempt had
    this very outcome already, because an earlier commit's answer was lost. `status` is the run's
    new one. `deliveries` are leased to us; `next_turn` is a run that may start now.
    """

    run_id: RunId
    applied: bool
    known: bool
    status: str | None
    due_ms: int | None
    lane: Lane | None
    deliveries: tuple[DueDelivery, ...]
    next_turn: tuple[RunId, Lane] | None


def sealed_secrets(endpoint: str) -> str:
    """The live signing secrets of an endpoint as `[[id, base64]…]`, newest first."""
    return f"""(SELECT coalesce(json_agg(json_build_array(s.id, encode(s.sealed, 'base64'))
      ORDER BY s.id DESC), '[]'::json) FROM webhook_secrets s WHERE s.endpoint_id = {endpoint}
      AND (s.expires_at IS NULL OR s.expires_at > now()))"""


def ending(lease: str = "0") -> str:
    """The CTEs behind `moved`: `done`, `event` and `delivery`.

    `lease` is an SQL number of seconds for which the deliveries belong to the caller.
    """
    return f"""
  done AS MATERIALIZED (
    SELECT r.*, {UUID7} AS event_id FROM moved r WHERE r.status NOT IN {LIVE_SQL}
  ),
  bodies AS MATERIALIZED (
    SELECT r.event_id, r.workspace_id, r.environment_id, r.id AS run_id, r.traceparent,
      'run.' || r.status AS type,
      CASE WHEN octet_length(x.body) <= {EVENT_BYTES} THEN x.body
        ELSE {event_body(EVENT_RUN_SMALL)} END AS body
    FROM done r {JOINS}
      CROSS JOIN LATERAL (SELECT {event_body(EVENT_RUN)} AS body OFFSET 0) AS x
  ),
  event AS (
    INSERT INTO events (id, workspace_id, environment_id, run_id, type, body)
    SELECT event_id, workspace_id, environment_id, run_id, type, body FROM bodies
  ),
  wanted AS MATERIALIZED (
    SELECT {UUID7} AS id, b.*, w.id AS endpoint_id, w.url, w.format, w.include_output,
      w.headers
    FROM bodies b JOIN webhook_endpoints w ON w.workspace_id = b.workspace_id
    WHERE w.deleted_at IS NULL AND w.disabled_at IS NULL
      AND (cardinality(w.environment_ids) = 0 OR b.environment_id = ANY(w.environment_ids))
      AND (cardinality(w.events) = 0 OR b.type = ANY(w.events))
  ),
  delivery AS (
    INSERT INTO deliveries (id, workspace_id, event_id, endpoint_id, status, lease_no, next_try_at)
    SELECT id, workspace_id, event_id, endpoint_id, 'pending', 1,
      now() + make_interval(secs => {lease}) FROM wanted
  )"""


def event_body(run: str) -> str:
    """An event as it is sent; `run` is one of `EVENT_RUN…`, and `r` has an `event_id`."""
    return f"""json_build_object('id', r.event_id, 'type', 'run.' || r.status,
      'timestamp', {moment("r.finished_at")}, 'environment', e.name,
      'data', json_build_object('run', {run}))::text"""


NEXT_TURN = f"""(SELECT json_build_array(n.id, n.priority) FROM runs n
    WHERE m.turn IS NOT NULL AND m.status NOT IN {LIVE_SQL}
      AND n.workspace_id = m.workspace_id AND n.thread_id = m.thread_id
      AND n.channel = m.channel AND n.turn > m.turn AND n.status = 'queued'
    ORDER BY n.turn LIMIT 1)"""

_ITEM = """json_to_recordset(%(items)s::json) AS x(
  run_id uuid, session_id uuid, claim_no int, status text, attempt int, status_reason text,
  delay_ms bigint,
  uncounted int, model text, output text, incomplete_reason text, error_code text,
  error_message text, error_origin text, last_error text, token_usage json, cost json,
  cost_nanousd bigint, unpriced boolean, outcome text, billed text, usage json, usage_raw text,
  verbatim text, attempt_cost json, attempt_cost_nanousd bigint, price_version text,
  provider_request_id text, attempt_error_code text, attempt_error text, turn json,
  transcript json)"""

# Judged inside the update, on the row as it is once locked: a cancel may have come just before.
_BACK = "i.status = 'queued' AND r.cancel_requested_at IS NULL"
# Written so that it becomes one hash table: a join of two batches would be tried pair by pair.
_LATE = "(i.run_id, i.claim_no) NOT IN (SELECT id, claim_no FROM moved)"
# Of a run whose contents are erased no late answer is kept. The attempt's own row says so, which is
# read as it is once locked: the erasing may be under way.
_KEPT = f"a.error_message IS DISTINCT FROM '{ERASED}'"


# Where calls are paid for, `settling` puts into the comments what that takes.
_SETTLE = f"""
WITH item AS MATERIALIZED (SELECT * FROM {_ITEM}),
  {held_claims("r.id, r.claim_no")},
  moved AS (
    UPDATE runs r SET status = CASE WHEN {_BACK} THEN 'queued'
        WHEN i.status = 'queued' THEN 'canceled' ELSE i.status END,
      session_id = NULL,
      finished_at = CASE WHEN {_BACK} THEN NULL ELSE now() END,
      env_vars = CASE WHEN {_BACK} THEN r.env_vars END,
      available_at = CASE WHEN {_BACK}
        THEN now() + make_interval(secs => coalesce(i.delay_ms, 0) / 1000.0)
        ELSE r.available_at END,
      status_reason = CASE WHEN {_BACK} THEN i.status_reason END,
      calls = r.calls - coalesce(i.uncounted, 0), model = coalesce(i.model, r.model),
      output = CASE WHEN i.status <> 'queued' THEN i.output END,
      transcript = CASE WHEN i.status <> 'queued' THEN i.transcript END,
      incomplete_reason = i.incomplete_reason,
      error_code = i.error_code, error_message = i.error_message, error_origin = i.error_origin,
      last_error = coalesce(i.last_error, r.last_error), token_usage = i.token_usage,
      cost = CASE WHEN i.unpriced IS NOT TRUE THEN coalesce(i.cost, r.cost) END,
      cost_nanousd = CASE WHEN i.unpriced IS NOT TRUE
        THEN coalesce(i.cost_nanousd, r.cost_nanousd) END
    FROM item i JOIN held h ON h.id = i.run_id AND h.claim_no = i.claim_no
    WHERE r.id = i.run_id AND r.claim_no = i.claim_no
      AND r.session_id IS NOT DISTINCT FROM i.session_id
    RETURNING r.*
  ),
  closed AS (
    UPDATE attempts a SET outcome = i.outcome, billed = i.billed, finished_at = now(),
      usage = i.usage, usage_raw = i.usage_raw,
      verbatim = CASE WHEN {_KEPT} THEN i.verbatim END, cost = i.attempt_cost,
      cost_nanousd = i.attempt_cost_nanousd, price_version = i.price_version,
      provider_request_id = i.provider_request_id, error_code = i.attempt_error_code,
      error_message = CASE WHEN {_KEPT} THEN i.attempt_error ELSE a.error_message END,
      late = {_LATE},
      late_output = CASE WHEN ({_LATE} OR i.status = 'queued') AND {_KEPT} THEN i.output END
    FROM item i
    WHERE a.run_id = ANY(ARRAY(SELECT run_id FROM item)) AND a.run_id = i.run_id
      AND a.number = i.attempt AND a.claim_no = i.claim_no
      AND a.session_id = i.session_id AND NOT a.late AND (a.outcome IS NULL OR a.outcome = 'lost')
    /*told*/
  ), /*money*/
  remembered AS (
    INSERT INTO messages (workspace_id, thread_id, channel, turn, position, run_id,
      environment_id, role, content)
    SELECT m.workspace_id, m.thread_id, m.channel, m.turn, t.position, m.id,
      m.environment_id, t.line->>'role', t.line->>'content'
    FROM item i JOIN moved m ON m.id = i.run_id AND m.claim_no = i.claim_no,
      json_array_elements(i.turn) WITH ORDINALITY AS t(line, position)
    WHERE i.turn IS NOT NULL AND m.turn IS NOT NULL AND m.status IN ('succeeded', 'incomplete')
  ),
{ending("%(lease_s)s")},
  leased AS MATERIALIZED (
    SELECT y.run_id, json_agg(json_build_object('id', y.id, 'lease_no', 1, 'tries', 0,
      'event_id', y.event_id, 'run_id', y.run_id, 'event_type', y.type, 'body', y.body,
      'endpoint_id', y.endpoint_id, 'workspace_id', y.workspace_id, 'url', y.url,
      'format', y.format, 'include_output', y.include_output,
      'headers', encode(y.headers, 'base64'), 'traceparent', y.traceparent,
      'secrets', {sealed_secrets("y.endpoint_id")}))::text AS list
    FROM wanted y GROUP BY y.run_id
  )
SELECT i.run_id, i.claim_no, m.id IS NOT NULL,
  m.id IS NULL AND EXISTS (SELECT 1 FROM attempts a
    WHERE a.run_id = i.run_id AND a.number = i.attempt AND a.claim_no = i.claim_no
      AND a.session_id = i.session_id AND a.outcome = i.outcome AND NOT a.late OFFSET 0),
  m.status, ceil(extract(epoch FROM m.available_at) * 1000)::bigint, m.priority,
  d.list,
  {NEXT_TURN}::text
FROM item i LEFT JOIN moved m ON m.id = i.run_id AND m.claim_no = i.claim_no
  LEFT JOIN leased d ON d.run_id = m.id
"""


def settling(money: str) -> str:
    """The statement that writes outcomes down, with CTEs that move money by what is `closed`."""
    told = "RETURNING a.run_id, a.number, a.workspace_id, a.billed, a.cost_nanousd"
    return _SETTLE.replace("/*told*/", told).replace("/*money*/", money)


_encode = msgspec.json.encode
_deliveries = msgspec.json.Decoder(tuple[DueDelivery, ...])
_next = msgspec.json.Decoder(tuple[RunId, Lane])


async def settle(store: Store, outcomes: Sequence[Outcome], *, lease_s: float) -> list[Moved]:
    """Write what became of runs that were claimed; answers in the order of `outcomes`."""
    return await settled(store, _SETTLE, outcomes, lease_s=lease_s)


async def settled(
    store: Store, statement: str, outcomes: Sequence[Outcome], *, lease_s: float
) -> list[Moved]:
    """Carry out a statement made by `settling`; answers like `settle`."""
    rows = await store.fetch(statement, {"items": _encode(outcomes).decode(), "lease_s": lease_s})
    by_claim = {row[:2]: row for row in rows}
    return [_moved(by_claim[UUID(outcome.run_id), outcome.claim_no]) for outcome in outcomes]


def _moved(row: TupleRow) -> Moved:
    run_id, _, applied, known, status, due_ms, lane, deliveries, following = row
    return Moved(
        run_id=run_id,
        applied=applied,
        known=known,
        status=status,
        due_ms=due_ms,
        lane=Lane(lane) if lane else None,
        deliveries=_deliveries.decode(deliveries) if deliveries else (),
        next_turn=_next.decode(following) if following else None,
    )


_CANCEL = f"""
WITH held AS MATERIALIZED (
    SELECT r.id FROM runs r WHERE r.workspace_id = %(workspace)s AND r.id = %(run)s
      AND {WITHIN} AND r.status IN {LIVE_SQL} ORDER BY r.id FOR UPDATE
  ),
  moved AS (
    UPDATE runs r SET cancel_requested_at = coalesce(r.cancel_requested_at, now()),
      status = CASE WHEN r.status = 'running' THEN r.status ELSE 'canceled' END,
      finished_at = CASE WHEN r.status = 'running' THEN NULL ELSE now() END,
      env_vars = CASE WHEN r.status = 'running' THEN r.env_vars END,
      status_reason = NULL
    FROM held h WHERE r.id = h.id AND r.status IN {LIVE_SQL}
    RETURNING r.*
  ),
{ending()}
SELECT m.status, {NEXT_TURN}::text FROM moved m
"""


async def cancel(
    store: Store, workspace_id: UUID, run_id: RunId, within: Collection[UUID] = ()
) -> tuple[str, tuple[RunId, Lane] | None] | None:
    """Cancel a live run: at once where it waits, by request where it runs.

    Answers its new status and the run of its thread that may start now; `None` when there is no
    live run of this id in the workspace.
    """
    rows = await store.fetch(
        _CANCEL, {"workspace": workspace_id, "run": run_id, "within": list(within)}
    )
    if not rows:
        return None
    status, following = rows[0]
    return status, _next.decode(following) if following else None
