"""A run as the outside sees it, written by PostgreSQL itself: one place, one spelling.

Expressions expect the aliases `r` (runs), `p` (prompts), `v` (prompt_versions) and
`e` (environments). `json_build_object` keeps the order and passes stored JSON through.
"""

from collections.abc import Iterable, Mapping

from shared.domain.states import LIVE

JOINS = """
  JOIN prompts p ON p.id = r.prompt_id
  JOIN prompt_versions v ON v.id = r.version_id
  JOIN environments e ON e.id = r.environment_id
"""

# The time in an id (RFC 9562, version 7) and 74 random bits: PostgreSQL before 18 has no uuidv7().
UUID7 = """
  encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
    FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
"""

WITHIN = "(cardinality(%(within)s::uuid[]) = 0 OR r.environment_id = ANY(%(within)s))"
"""Keeps to the environments that a key is limited to; none mean all."""
LIVE_SQL = "(" + ", ".join(f"'{status}'" for status in sorted(LIVE)) + ")"
# Where a smaller live turn of the thread's channel exists, its end rings this one.
NO_EARLIER_TURN = f"""(r.turn IS NULL OR NOT EXISTS (SELECT 1 FROM runs f
    WHERE f.workspace_id = r.workspace_id AND f.thread_id = r.thread_id
      AND f.channel = r.channel AND f.turn < r.turn AND f.status IN {LIVE_SQL}))"""
OUTPUT_INLINE_BYTES = 8192
EVENT_BYTES = 20_000
_NO_COST = (
    '{"success":{"input":0,"cachedInput":0,"cacheWrite":0,"output":0,"webSearch":0,"total":0},'
    '"retries":{"input":0,"cachedInput":0,"cacheWrite":0,"output":0,"webSearch":0,"total":0},'
    '"total":0}'
)


def moment(expression: str) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return f"""to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""


_ERROR = """CASE WHEN r.error_code IS NULL THEN NULL ELSE json_build_object(
  'code', r.error_code, 'message', r.error_message, 'origin', r.error_origin) END"""

COST = f"""CASE WHEN r.status IN {LIVE_SQL} THEN NULL
  WHEN r.cost IS NULL AND r.calls = 0 AND r.attempts = 0 THEN '{_NO_COST}'::json ELSE r.cost END"""

_ATTEMPTS = f"""(SELECT coalesce(json_agg(json_build_object(
    'number', a.number, 'startedAt', {moment("a.started_at")},
    'finishedAt', {moment("a.finished_at")}, 'outcome', a.outcome,
    'model', a.provider || '/' || a.model, 'providerRequestId', a.provider_request_id,
    'usage', a.usage, 'cost', a.cost, 'billed', a.billed, 'late', a.late,
    'error', CASE WHEN a.error_code IS NULL THEN NULL ELSE json_build_object(
      'code', a.error_code, 'message', a.error_message) END) ORDER BY a.number), '[]'::json)
  FROM attempts a WHERE a.run_id = r.id)"""

EARLIER = """m.workspace_id = r.workspace_id AND m.thread_id = r.thread_id
  AND m.channel = r.channel AND m.turn < r.turn AND coalesce(m.environment_id,
    (SELECT x.environment_id FROM runs x WHERE x.id = m.run_id)) = r.environment_id"""
"""What a run may remember: messages `m` of its channel before it, of its own environment."""

_MESSAGES = f"""CASE WHEN r.messages IS NULL OR r.turn IS NULL THEN r.messages ELSE (
  SELECT json_agg(line ORDER BY place, turn, position) FROM (
    SELECT 0 AS place, 0 AS turn, s.n AS position, s.line FROM
      json_array_elements(r.messages) WITH ORDINALITY AS s(line, n)
      WHERE s.line->>'role' = 'system'
    UNION ALL
    SELECT 1, m.turn, m.position, json_build_object('role', m.role, 'content', m.content)
      FROM messages m WHERE r.history_read AND {EARLIER}
        AND m.turn >= coalesce(r.history_from, 0)
    UNION ALL
    SELECT 2, 0, s.n, s.line FROM json_array_elements(r.messages) WITH ORDINALITY AS s(line, n)
      WHERE s.line->>'role' <> 'system') AS lines) END"""

# What tools were called with, in the order of the calls.
_EMITTED = """CASE WHEN r.transcript IS NULL THEN '[]'::json ELSE (
  SELECT coalesce(json_agg(json_build_object('tool', t.line->'tool', 'payload', t.line->'payload')
    ORDER BY t.n), '[]'::json)
  FROM json_array_elements(r.transcript) WITH ORDINALITY AS t(line, n)
  WHERE t.line->>'type' = 'data') END"""

FIELDS: dict[str, str] = {
    "id": "r.id",
    "status": "r.status",
    "done": f"r.status NOT IN {LIVE_SQL}",
    "statusReason": f"""CASE WHEN r.status <> 'queued' THEN r.status_reason
      WHEN {NO_EARLIER_TURN} THEN CASE WHEN r.available_at <= now() AND EXISTS (
        SELECT 1 FROM lane_pauses l WHERE l.lane = r.priority) THEN text 'lane_paused'
        ELSE r.status_reason END
      ELSE 'thread_busy' END""",
    "nextAttemptAt": f"""CASE WHEN r.status IN ('queued', 'scheduled') AND r.available_at > now()
      THEN {moment("r.available_at")} END""",
    "prompt": """json_build_object('slug', p.slug, 'version', v.number, 'versionId', v.id,
      'tag', r.tag)""",
    "environment": "e.name",
    "priority": "r.priority",
    "thread": "r.thread_id",
    "channel": "r.channel",
    "inputs": "r.inputs",
    "metadata": "r.metadata",
    "tags": "r.tags",
    "model": "r.model",
    "output": "r.output",
    "emitted": _EMITTED,
    "incompleteReason": "r.incomplete_reason",
    "error": _ERROR,
    "attempts": _ATTEMPTS,
    "messages": _MESSAGES,
    "tokenUsage": "r.token_usage",
    "cost": COST,
    "createdAt": moment("r.created_at"),
    "startedAt": moment("r.started_at"),
    "finishedAt": moment("r.finished_at"),
    "cancelRequestedAt": moment("r.cancel_requested_at"),
    "contentsErasedAt": moment("r.contents_erased_at"),
    "replayedFrom": "r.replayed_from",
    "links": """json_build_object('self', '/api/v1/runs/' || r.id,
      'cancel', '/api/v1/runs/' || r.id || '/cancel',
      'replay', '/api/v1/runs/' || r.id || '/replay',
      'deliveries', '/api/v1/runs/' || r.id || '/deliveries')""",
}


def build(names: Iterable[str], extra: str = "", fields: Mapping[str, str] = FIELDS) -> str:
    """A `json_build_object` with the named fields of a run."""
    pairs = ", ".join(f"'{name}', {fields[name]}" for name in names)
    return f"json_build_object({pairs}{extra})"


RUN = build(FIELDS)
NOT_IN_EVENTS = {"inputs", "messages", "attempts", "output", "emitted"}
_IN_EVENTS = [name for name in FIELDS if name not in NOT_IN_EVENTS]
_SMALL = [name for name in _IN_EVENTS if name not in {"metadata", "tags", "error"}]
_OUTPUT = f""", 'output', CASE WHEN octet_length(r.output) <= {OUTPUT_INLINE_BYTES}
  THEN r.output END,
  'outputTruncated', coalesce(octet_length(r.output) > {OUTPUT_INLINE_BYTES}, false)"""

# Events tell of ends: such a run waits for nothing, and nobody has to look.
_ENDED = FIELDS | {"statusReason": "NULL"}

EVENT_RUN = build(_IN_EVENTS, _OUTPUT, _ENDED)
EVENT_RUN_SMALL = build(
    _SMALL, ", 'output', NULL, 'outputTruncated', true, 'metadataTruncated', true", _ENDED
)

PROMPT_RUN = f"""json_build_object('id', r.id,
  'status', CASE WHEN r.status IN {LIVE_SQL} THEN 'pending'
    WHEN r.status IN ('succeeded', 'incomplete') THEN 'completed' ELSE 'failed' END,
  'createdAt', {moment("r.created_at")}, 'finishedAt', {moment("r.finished_at")},
  'output', r.output, 'emitted', {_EMITTED},
  'transcript', CASE WHEN r.transcript IS NOT NULL THEN r.transcript
    WHEN r.output IS NULL THEN '[]'::json ELSE json_build_array(
    json_build_object('type', 'text', 'content', r.output, 'citations', '[]'::json)) END,
  'error', coalesce(r.last_error, r.error_message),
  'tokenUsage', r.token_usage, 'cost', {COST})"""
