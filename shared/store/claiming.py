"""Taking runs and announcing provider calls: the two statements before a call."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from msgspec import Raw

from shared.domain.states import Lane
from shared.ids import EnvironmentId, RunId, SessionId, VersionId, WorkspaceId
from shared.store.database import Store
from shared.store.run_json import NO_EARLIER_TURN

Caps = Mapping[UUID, int]
"""Environments, and how many of their runs may run at once."""
NO_CAPS: Caps = {}
PARKED = "backlog"
PARKED_S = 20
"""For once to twice so long a run without room stays away, unless room is made for it."""


class ClaimedRun(msgspec.Struct, frozen=True):
    """A run that is ours, with all that executing it needs.

    `tried` is JSON: its earlier calls in order, with `provider`, `model`, `outcome`, `error_code`,
    `cost`, whether it is `unpriced` and, of an answer that missed its schema, the answer and what
    was wrong as `miss`; null when there are none. `waited_s` counts from the moment it was due.
    """

    id: RunId
    session_id: SessionId
    workspace_id: WorkspaceId
    environment_id: EnvironmentId
    version_id: VersionId
    claim_no: int
    lane: Lane
    inputs: str
    env_vars: bytes | None
    model: str
    models: list[str] | None
    model_overridden: bool
    params: str | None
    flow: str | None
    calls: int
    attempts: int
    max_attempts: int
    on_unknown_outcome: str
    turn: int | None
    history_read: bool
    traceparent: str | None
    seconds_left: float
    tried: str | None
    variables_version: int
    server_credentials: bool
    accounted: bool = False
    max_nanousd: int | None = None
    waited_s: float = 0


class Later(msgspec.Struct, frozen=True):
    """Not ours now: ring it again at `due_ms` (Unix milliseconds)."""

    lane: Lane
    due_ms: int


class Unknown(msgspec.Struct, frozen=True):
    """No run has this id."""


_TAKE = """
  taken AS (
    UPDATE runs r SET status = 'running', status_reason = NULL, claim_no = r.claim_no + 1,
      session_id = %(session)s, started_at = coalesce(r.started_at, now()),
      ends_at = coalesce(r.ends_at,
        least(r.deadline, now() + make_interval(secs => r.max_duration_s)))
    FROM ready l WHERE r.id = l.id AND EXISTS (SELECT 1 FROM worker_sessions s
      WHERE s.id = %(session)s AND s.reaped_at IS NULL)
    RETURNING r.*
  )
"""

_COLUMNS = """
  t.id, t.session_id, t.workspace_id, t.environment_id, t.version_id, t.claim_no, t.priority,
  t.inputs::text, t.env_vars, t.model, t.models,
  t.model_overridden, t.params::text, t.flow::text, t.calls, t.attempts, t.max_attempts,
  t.on_unknown_outcome, t.turn, t.history_read, t.traceparent,
  extract(epoch FROM t.ends_at - now())::float8,
  CASE WHEN t.attempts > 0 THEN (SELECT json_agg(json_build_object(
      'provider', a.provider, 'model', a.model, 'outcome', a.outcome,
      'error_code', a.error_code, 'cost', a.cost,
      'unpriced', a.usage IS NOT NULL AND a.cost IS NULL,
      'miss', CASE WHEN a.error_code = 'schema_mismatch'
        THEN json_build_array(a.late_output, a.error_message) END) ORDER BY a.number)
    FROM attempts a WHERE a.run_id = t.id)::text END,
  e.variables_version, w.server_credentials, w.accounted,
  least(t.max_nanousd, w.max_request_nanousd),
  extract(epoch FROM now() - t.available_at)::float8
"""
_JOINS = """
  LEFT JOIN environments e ON e.id = t.environment_id
  LEFT JOIN workspaces w ON w.id = t.workspace_id
"""

_STARTABLE = """r.available_at <= now()
      AND NOT r.needs_turn AND r.cancel_requested_at IS NULL
      AND (r.expires_at > now() OR r.started_at IS NOT NULL)"""
_WAITING = ["queued", "scheduled"]


def _milliseconds(moment: str) -> str:
    return f"ceil(extract(epoch FROM {moment}) * 1000)::bigint"


_FOUND = f"""
    SELECT l.* FROM (SELECT DISTINCT id FROM unnest(%(ids)s::uuid[]) AS x(id) ORDER BY id) AS asked
      CROSS JOIN LATERAL (SELECT {{columns}} FROM runs r
        WHERE r.id = asked.id AND r.status = ANY(%(waiting)s) AND {_STARTABLE}
          AND {NO_EARLIER_TURN} FOR UPDATE SKIP LOCKED) AS l
"""

# Of environments that let so many runs run at once, those that find room; the others are parked,
# and drop out of the lanes until one ends, or their time comes again. In descending order the
# lanes' names stand as their priorities do.
_FITTING = f"""
  room AS MATERIALIZED (
    SELECT c.id, c.most - (SELECT count(*) FROM runs r
      WHERE r.status = 'running' AND r.environment_id = c.id) AS room
    FROM unnest(%(capped)s::uuid[], %(most)s::int[]) AS c(id, most)
    WHERE c.id IN (SELECT environment_id FROM found)
  ),
  ranked AS MATERIALIZED (
    SELECT f.id, o.id IS NULL OR o.room >= row_number() OVER (
      PARTITION BY f.environment_id ORDER BY f.priority DESC, f.available_at, f.id) AS fits
    FROM found f LEFT JOIN room o ON o.id = f.environment_id
  ),
  ready AS MATERIALIZED (SELECT id FROM ranked WHERE fits),
  parked AS (
    UPDATE runs r SET status = 'queued', status_reason = '{PARKED}',
      available_at = now() + random() * interval '{PARKED_S} seconds'
        + interval '{PARKED_S} seconds'
    FROM ranked k WHERE r.id = k.id AND NOT k.fits RETURNING r.id, r.available_at
  ),
"""
_RANKED_COLUMNS = "r.id, r.environment_id, r.priority, r.available_at"


def _claim(found: str, *, when_parked: str = "", join_parked: str = "") -> str:
    # The states are a parameter: were they spelled out, the planner might walk an index of all that
    # waits instead of looking these few up.
    return f"""
WITH {found}
{_TAKE}
SELECT {_COLUMNS}, asked.id,
  CASE WHEN r.id IS NULL OR t.id IS NOT NULL OR r.status NOT IN ('queued', 'scheduled')
      OR r.cancel_requested_at IS NOT NULL
      OR (r.expires_at <= now() AND r.started_at IS NULL) THEN NULL
    {when_parked}
    WHEN r.available_at > now() THEN {_milliseconds("r.available_at")}
    WHEN r.needs_turn OR NOT {NO_EARLIER_TURN} THEN NULL
    ELSE (extract(epoch FROM now()) * 1000)::bigint + 100 END,
  r.priority
FROM unnest(%(ids)s::uuid[]) AS asked(id) LEFT JOIN taken t ON t.id = asked.id
  LEFT JOIN runs r ON r.id = asked.id {join_parked} {_JOINS}
"""


_CLAIM = _claim(f"ready AS MATERIALIZED ({_FOUND.format(columns='r.id')}),")
_CLAIM_CAPPED = _claim(
    f"found AS MATERIALIZED ({_FOUND.format(columns=_RANKED_COLUMNS)}),{_FITTING}",
    when_parked=f"WHEN z.id IS NOT NULL THEN {_milliseconds('z.available_at')}",
    join_parked="LEFT JOIN parked z ON z.id = asked.id",
)
# Who claims for the same environment waits here, and counts what we have taken.
_LOCK = """
SELECT 1 FROM environments e WHERE e.id = ANY(%(capped)s) AND e.id IN (
  SELECT r.environment_id FROM runs r WHERE r.id = ANY(%(ids)s) AND r.status = ANY(%(waiting)s))
ORDER BY e.id FOR NO KEY UPDATE
"""
_LOCK_ALL = (
    "SELECT 1 FROM environments e WHERE e.id = ANY(%(capped)s) ORDER BY e.id FOR NO KEY UPDATE"
)


def held_claims(columns: str, and_also: str = "") -> str:
    """The CTE `held`: locks, in the order of ids, the runs of `item` that are still its claim's.

    Written so that each run is looked up by its id, whatever the planner believes about tables
    that were small when it looked: LATERAL with a lock of its own is joined in no other way, and
    "not distinct" keeps it off the index of sessions. A run with a session is running (a
    constraint).
    """
    return f"""held AS MATERIALIZED (
    SELECT l.* FROM (SELECT * FROM item ORDER BY run_id) AS i CROSS JOIN LATERAL (
      SELECT {columns} FROM runs r
      WHERE r.id = i.run_id AND r.claim_no = i.claim_no
        AND r.session_id IS NOT DISTINCT FROM i.session_id {and_also}
      FOR UPDATE OF r) AS l
  )"""


_FOUND_DUE = f"""
    SELECT {{columns}} FROM runs r
    WHERE r.priority = %(lane)s AND r.status IN ('queued', 'scheduled') AND {_STARTABLE}
      AND {NO_EARLIER_TURN}
      AND NOT EXISTS (SELECT 1 FROM lane_pauses z WHERE z.lane = %(lane)s)
    ORDER BY r.available_at, r.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
_DUE = f"""{{found}}
{_TAKE}
SELECT {_COLUMNS} FROM taken t {_JOINS}
"""
_CLAIM_DUE = _DUE.format(found=f"WITH ready AS MATERIALIZED ({_FOUND_DUE.format(columns='r.id')}),")
_CLAIM_DUE_CAPPED = _DUE.format(
    found=f"WITH found AS MATERIALIZED ({_FOUND_DUE.format(columns=_RANKED_COLUMNS)}),{_FITTING}"
)

_WIDTH = len(ClaimedRun.__struct_fields__)


async def claim(
    store: Store, session: SessionId, ids: Sequence[RunId], caps: Caps = NO_CAPS
) -> dict[RunId, ClaimedRun | Later | Unknown | None]:
    """Take runs; answers once for every id: ours, later, unknown, or nothing to do (`None`).

    Of the environments of `caps` no more are taken than may run at once.
    """
    values = {"session": session, "ids": list(ids), "waiting": _WAITING}
    rows = await (
        store.fetch_behind(_LOCK, _CLAIM_CAPPED, values | _of(caps))
        if caps
        else store.fetch(_CLAIM, values)
    )
    answer: dict[RunId, ClaimedRun | Later | Unknown | None] = {}
    for row in rows:
        asked, due_ms, lane = row[_WIDTH:]
        if row[0] is not None:
            answer[asked] = _claimed(row)
        elif lane is None:
            answer[asked] = Unknown()
        else:
            answer[asked] = None if due_ms is None else Later(Lane(lane), due_ms)
    return answer


async def claim_due(
    store: Store, session: SessionId, lane: Lane, limit: int, caps: Caps = NO_CAPS
) -> list[ClaimedRun]:
    """Take the longest due runs of a lane without asking Redis."""
    values = {"session": session, "lane": lane.value, "limit": limit}
    rows = await (
        store.fetch_behind(_LOCK_ALL, _CLAIM_DUE_CAPPED, values | _of(caps))
        if caps
        else store.fetch(_CLAIM_DUE, values)
    )
    return [_claimed(row) for row in rows]


def _of(caps: Caps) -> dict[str, object]:
    return {"capped": list(caps), "most": list(caps.values())}


def _claimed(row: Sequence[object]) -> ClaimedRun:
    return msgspec.convert(
        dict(zip(ClaimedRun.__struct_fields__, row[:_WIDTH], strict=True)), ClaimedRun
    )


class Intent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A provider call about to be made. `messages` are the rendered ones, once per run.

    `history_from` is the first turn of its thread that goes along, where it reads any.

    `attempts_before` are those that the run had when it was claimed: a claim makes one call.
    `account` is the workspace that has to pay for the call, which may cost `hold_nanousd`.
    """

    run_id: str
    session_id: str
    claim_no: int
    attempts_before: int
    provider: str
    model: str
    messages: Raw | None = None
    sha256: str | None = None
    history_from: int | None = None
    account: str | None = None
    hold_nanousd: int | None = None


class Refusal(msgspec.Struct, frozen=True):
    """The call must not be made: `lost` claim, `canceled`, attempts `exhausted`, or no `money`."""

    reason: str


# `held` says of a cancel what it says once the row is locked: one may have come just before. And of
# attempts: a statement that runs on after its connection was lost may have announced this call.
# Where calls are paid for, `announcing` puts into the comments what that takes.
_INTENT = f"""
WITH item AS MATERIALIZED (SELECT * FROM json_to_recordset(%(items)s::json) AS x(
    run_id uuid, session_id uuid, claim_no int, attempts_before int, provider text, model text,
    messages json, sha256 text, history_from int, hold_nanousd bigint)),
  {
    held_claims(
        "r.id, r.claim_no, r.attempts, r.cancel_requested_at IS NOT NULL AS canceled /*of run*/",
        '''AND EXISTS (SELECT 1 FROM worker_sessions s
          WHERE s.id = i.session_id AND s.reaped_at IS NULL)''',
    )
}, /*checks*/
  counted AS (
    UPDATE runs r SET calls = r.calls + 1, attempts = r.attempts + 1,
      messages = coalesce(i.messages, r.messages),
      history_from = coalesce(i.history_from, r.history_from),
      messages_sha256 = coalesce(decode(i.sha256, 'hex'), r.messages_sha256)
    FROM item i JOIN held h ON h.id = i.run_id AND h.claim_no = i.claim_no
    WHERE r.id = i.run_id AND r.claim_no = i.claim_no
      AND r.session_id IS NOT DISTINCT FROM i.session_id
      AND r.attempts = i.attempts_before
      AND r.cancel_requested_at IS NULL AND r.calls < r.max_attempts /*only*/
    RETURNING r.id, r.workspace_id, r.attempts, r.claim_no
  ),
  opened AS (
    INSERT INTO attempts (run_id, number, workspace_id, claim_no, session_id, provider, model)
    SELECT c.id, c.attempts, c.workspace_id, c.claim_no, i.session_id, i.provider, i.model
    FROM counted c JOIN item i ON i.run_id = c.id AND i.claim_no = c.claim_no
  ) /*then*/
SELECT i.run_id, i.claim_no,
  coalesce(c.attempts, CASE WHEN h.attempts > i.attempts_before THEN h.attempts END), h.canceled,
  /*short*/ false
FROM item i LEFT JOIN counted c ON c.id = i.run_id AND c.claim_no = i.claim_no
  LEFT JOIN held h ON h.id = i.run_id AND h.claim_no = i.claim_no
"""


def announcing(*, of_run: str, checks: str, only: str, then: str, short: str) -> str:
    """The statement that writes attempts down, for `announced`, where calls are paid for.

    `of_run` are more columns of the runs, `checks` and `then` are CTEs behind `held` and at the
    end, `only` is what else has to hold of a run `r`, and `short` says of an item `i` that it was
    refused for want of money.
    """
    statement = _INTENT.replace("/*short*/ false", short)
    for place, given in {"of run": of_run, "checks": checks, "only": only, "then": then}.items():
        statement = statement.replace(f"/*{place}*/", given)
    return statement


async def intend(store: Store, intents: Sequence[Intent]) -> list[int | Refusal]:
    """Write attempt rows before any byte is sent; answers the attempt's number, or a refusal.

    Executing the same again is safe, also while the first may be under way: it is one attempt.
    """
    return await announced(store, _INTENT, intents)


async def announced(store: Store, statement: str, intents: Sequence[Intent]) -> list[int | Refusal]:
    """Carry out a statement made by `announcing`; answers like `intend`."""
    rows = await store.fetch(statement, {"items": msgspec.json.encode(intents).decode()})
    by_claim = {row[:2]: row[2:] for row in rows}
    answers: list[int | Refusal] = []
    for intent in intents:
        number, canceled, short = by_claim[UUID(intent.run_id), intent.claim_no]
        if number is not None:
            answers.append(number)
        elif canceled is None:
            answers.append(Refusal("lost"))
        elif short:
            answers.append(Refusal("money"))
        else:
            answers.append(Refusal("canceled" if canceled else "exhausted"))
    return answers


_HELD = """
SELECT r.id, r.claim_no FROM runs r WHERE r.session_id = %(session)s AND r.status = 'running'
  AND NOT EXISTS (SELECT 1 FROM attempts a
    WHERE a.run_id = r.id AND a.claim_no = r.claim_no AND a.outcome IS NULL)
"""


async def held(store: Store, session: SessionId) -> set[tuple[RunId, int]]:
    """The claims of a session that have announced no call yet: ids with their `claim_no`."""
    return {(RunId(row[0]), row[1]) for row in await store.fetch(_HELD, {"session": session})}
