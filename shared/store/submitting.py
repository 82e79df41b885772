"""Writing runs: the submissions of many concurrent requests in one statement."""

from collections.abc import Sequence
from uuid import UUID

import msgspec
import psycopg

from shared.ids import EnvironmentId, PromptId, RunId, VersionId, WorkspaceId, parse
from shared.store import aliases
from shared.store.database import Store


class NewRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row to be. Its prompt was resolved at `catalog_version` of the workspace.

    Moments are RFC 3339 texts, JSON documents are texts, sealed values are base64. `models` are
    what an alias stood for; without one the version says which models may be called. `turns` asks
    for a turn number in the thread's channel; `again` says that the id may be there already.
    `max_queued_runs` is not stored: how many may wait in its environment, 0 for any number.
    """

    id: str
    workspace_id: str
    catalog_version: int
    environment_id: str
    prompt_id: str
    version_id: str
    key_id: str
    priority: str
    expires_in_s: int
    max_duration_s: int
    max_attempts: int
    on_unknown_outcome: str
    thread_id: str
    channel: str
    inputs: str
    metadata: str
    tags: tuple[str, ...]
    model: str
    models: tuple[str, ...] | None = None
    model_overridden: bool = False
    thread_given: bool = False
    turns: bool = False
    again: bool = False
    history_read: bool = False
    tag: str | None = None
    params: str | None = None
    flow: str | None = None
    env_vars: str | None = None
    traceparent: str | None = None
    run_at: str | None = None
    deadline: str | None = None
    replayed_from: str | None = None
    operation: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    key_kept_s: int = 0
    max_queued_runs: int = 0
    max_nanousd: int | None = None


class Stored(msgspec.Struct, frozen=True):
    """The run is there. `due_ms` is when it may start; `waits` that its thread is busy."""

    run_id: RunId
    thread_id: UUID
    status: str
    due_ms: int


class Stale(msgspec.Struct, frozen=True):
    """The workspace's prompts, tags or environments changed meanwhile: resolve again."""


class Taken(msgspec.Struct, frozen=True):
    """The run's id or its idempotency key exists already: look at what is there."""


_ITEM = """json_to_recordset(%(items)s::json) AS x(
  id uuid, workspace_id uuid, catalog_version int, environment_id uuid, prompt_id uuid,
  version_id uuid, key_id uuid, priority text, expires_in_s bigint, max_duration_s int,
  max_attempts int, on_unknown_outcome text, thread_id uuid, channel text, inputs text,
  metadata text, tags text[], model text, models text[], model_overridden boolean,
  thread_given boolean, turns boolean, history_read boolean, tag text, params text, flow text,
  env_vars text, traceparent text, run_at timestamptz, deadline timestamptz, replayed_from uuid,
  operation text, idempotency_key text, fingerprint text, key_kept_s bigint,
  max_nanousd bigint)"""


def _insert(source: str, *, later: str, turn: str, needs_turn: str) -> str:
    return f"""INSERT INTO runs (id, workspace_id, environment_id, prompt_id, version_id, tag,
      key_id, replayed_from, traceparent, status, priority, available_at, expires_at, deadline,
      max_duration_s, max_attempts, on_unknown_outcome, thread_id, channel, turn, needs_turn,
      history_read, inputs, env_vars, metadata, tags, model, models, model_overridden, params,
      flow, max_nanousd)
    SELECT x.id, x.workspace_id, environment_id, prompt_id, version_id, tag, key_id,
      replayed_from, traceparent, CASE WHEN {later} THEN 'scheduled' ELSE 'queued' END, priority,
      greatest(run_at, now()), greatest(run_at, now()) + make_interval(secs => expires_in_s),
      deadline, max_duration_s, max_attempts, on_unknown_outcome, thread_id, channel, {turn},
      {needs_turn}, coalesce(history_read, false), inputs::json, decode(env_vars, 'base64'),
      metadata::jsonb, tags, model, models, coalesce(model_overridden, false), params::json,
      flow::json, max_nanousd
    FROM {source} ORDER BY x.id
    ON CONFLICT (id) DO NOTHING"""


_DUE_MS = "ceil(extract(epoch FROM available_at) * 1000)::bigint"

_FRESH = """JOIN workspaces w ON w.id = x.workspace_id AND w.catalog_version = x.catalog_version"""

# What most batches need: no keys, no threads, ids never tried before, so that a row which is not
# inserted can only be a stale one. It takes half the time of the whole statement below.
_SUBMIT_PLAIN = f"""
{
    _insert(
        f"{_ITEM} {_FRESH}",
        later="coalesce(run_at > now(), false)",
        turn="NULL",
        needs_turn="false",
    )
}
RETURNING id, true, true, thread_id, status, {_DUE_MS}
"""

# A thread's row is locked even where nothing about it changes: its deletion waits for us, or we
# for it, and what was deleted meanwhile begins anew.
_SUBMIT = f"""
WITH item AS MATERIALIZED (SELECT x.*, row_number() OVER () AS place FROM {_ITEM}),
  fresh AS MATERIALIZED (
    SELECT x.*, coalesce(x.run_at > now(), false) AS later FROM item x {_FRESH}
  ),
  keyed AS (
    INSERT INTO idempotency_keys AS k
      (workspace_id, operation, key, fingerprint, run_id, expires_at)
    SELECT DISTINCT ON (workspace_id, operation, idempotency_key)
      workspace_id, operation, idempotency_key, decode(fingerprint, 'hex'), id,
      now() + make_interval(secs => key_kept_s)
    FROM fresh WHERE idempotency_key IS NOT NULL
    ORDER BY workspace_id, operation, idempotency_key, place
    ON CONFLICT (workspace_id, operation, key) DO UPDATE
      SET fingerprint = excluded.fingerprint, run_id = excluded.run_id,
        expires_at = excluded.expires_at
      WHERE k.expires_at < now()
    RETURNING run_id
  ),
  accepted AS MATERIALIZED (
    SELECT f.* FROM fresh f
    WHERE (f.idempotency_key IS NULL OR f.id IN (SELECT run_id FROM keyed))
      AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = f.id)
  ),
  thread AS (
    INSERT INTO threads AS h (workspace_id, id, environment_ids)
    SELECT workspace_id, thread_id, array_agg(DISTINCT environment_id) FROM accepted
    WHERE thread_given OR turns GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (workspace_id, id) DO UPDATE SET deleted_at = NULL,
      created_at = CASE WHEN h.deleted_at IS NULL THEN h.created_at ELSE now() END,
      environment_ids = CASE WHEN h.deleted_at IS NULL
        THEN ARRAY(SELECT DISTINCT unnest(h.environment_ids || excluded.environment_ids))
        ELSE excluded.environment_ids END
      WHERE h.deleted_at IS NOT NULL OR NOT h.environment_ids @> excluded.environment_ids
  ),
  turn AS (
    INSERT INTO turns AS t (workspace_id, thread_id, channel, last_turn)
    SELECT workspace_id, thread_id, channel, count(*) FROM accepted WHERE turns AND NOT later
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (workspace_id, thread_id, channel) DO UPDATE
      SET last_turn = t.last_turn + excluded.last_turn
    RETURNING workspace_id, thread_id, channel, last_turn
  ),
  numbered AS (
    SELECT a.*, CASE WHEN a.turns AND NOT a.later THEN t.last_turn - count(*) OVER channels
        + row_number() OVER (PARTITION BY a.workspace_id, a.thread_id, a.channel,
          a.turns AND NOT a.later ORDER BY a.place) END AS turn
    FROM accepted a LEFT JOIN turn t USING (workspace_id, thread_id, channel)
    WINDOW channels AS (PARTITION BY a.workspace_id, a.thread_id, a.channel,
      a.turns AND NOT a.later)
  ),
  run AS (
    {
    _insert(
        "numbered x",
        later="later",
        turn="turn",
        needs_turn="coalesce(turns, false) AND later",
    )
}
    RETURNING id, thread_id, status, available_at
  )
SELECT i.id, f.id IS NOT NULL, r.id IS NOT NULL, r.thread_id, r.status, {_DUE_MS}
FROM item i LEFT JOIN fresh f ON f.id = i.id LEFT JOIN run r ON r.id = i.id
"""


async def insert(store: Store, new: Sequence[NewRun]) -> list[Stored | Stale | Taken]:
    """Insert a batch in one transaction; answers in the order of `new`.

    Executing the same batch again is safe: ids and keys that exist answer `Taken`.
    """
    try:
        rows = await store.fetch(
            _SUBMIT_PLAIN if all(map(_is_plain, new)) else _SUBMIT,
            {"items": msgspec.json.encode(new).decode()},
        )
    except psycopg.errors.ForeignKeyViolation:
        if len(new) == 1:
            return [Stale()]  # its version was deleted while we inserted
        raise  # the batch is repeated one by one
    by_id = {row[0]: row for row in rows}
    return [_answer(by_id.get(UUID(run.id))) for run in new]


def _is_plain(run: NewRun) -> bool:
    return not (run.again or run.idempotency_key or run.thread_given or run.turns)


async def insert_all(store: Store, new: Sequence[NewRun]) -> list[Stored | Stale | Taken]:
    """Insert all of a batch or, when any of it cannot be, nothing; answers like `insert`."""
    items = msgspec.json.encode(new).decode()
    try:
        rows = await store.fetch_all_or_nothing(
            _SUBMIT, {"items": items}, keep=lambda rows: all(row[2] for row in rows)
        )
    except psycopg.errors.ForeignKeyViolation:
        return [Stale() for _ in new]  # a version was deleted while we inserted
    by_id = {row[0]: row for row in rows}
    return [_answer(by_id[UUID(run.id)]) for run in new]


def _answer(row: Sequence[object] | None) -> Stored | Stale | Taken:
    if row is None:
        return Stale()
    run_id, fresh, stored, thread_id, status, due_ms = row
    if not fresh:
        return Stale()
    if not stored:
        return Taken()
    return msgspec.convert(
        {"run_id": run_id, "thread_id": thread_id, "status": status, "due_ms": due_ms}, Stored
    )


class Existing(msgspec.Struct, frozen=True):
    """A run found by id or idempotency key; `fingerprint` is that of the key's request."""

    run_id: RunId
    thread_id: UUID
    status: str
    environment_id: UUID
    fingerprint: bytes | None


_BY_KEYS = """
SELECT k.key, r.id, r.thread_id, r.status, r.environment_id, k.fingerprint FROM idempotency_keys k
JOIN runs r ON r.id = k.run_id
WHERE k.workspace_id = %(workspace)s AND k.operation = %(operation)s AND k.key = ANY(%(keys)s)
  AND k.expires_at >= now()
"""
_BY_ID = """
SELECT r.id, r.thread_id, r.status, r.environment_id, NULL::bytea FROM runs r
WHERE r.workspace_id = %(workspace)s AND r.id = %(run)s
"""


async def find_by_keys(
    store: Store, workspace_id: WorkspaceId, operation: str, keys: Sequence[str]
) -> dict[str, Existing]:
    """The runs that idempotency keys made, by key."""
    rows = await store.fetch(
        _BY_KEYS, {"workspace": workspace_id, "operation": operation, "keys": list(keys)}
    )
    return {row[0]: Existing(*row[1:]) for row in rows}


async def find_by_id(store: Store, workspace_id: WorkspaceId, run_id: RunId) -> Existing | None:
    """A run of this id, if it was stored."""
    rows = await store.fetch(_BY_ID, {"workspace": workspace_id, "run": run_id})
    return Existing(*rows[0]) if rows else None


class Resolved(msgspec.Struct, frozen=True):
    """A prompt's version and an environment, as they were at `catalog_version`."""

    catalog_version: int
    prompt_id: PromptId | None
    slug: str | None
    version_id: VersionId | None
    number: int | None
    tag: str | None
    body: str | None
    environment_id: EnvironmentId | None
    environment: str | None
    published: bool
    max_queued_runs: int | None
    aliases: str | None
    accounted: bool


# `kind` says how a version is named: number, id, tag, pin or latest. A pin is that of the named
# environment, else that of the default one.
_RESOLVE = f"""
SELECT w.catalog_version, p.id, p.slug, v.id, v.number,
  CASE WHEN %(kind)s IN ('tag', 'pin') THEN %(selector)s END, v.body::text, e.id, e.name,
  v.published_at IS NOT NULL, e.max_queued_runs, {aliases.AS_JSON}, w.accounted
FROM workspaces w
LEFT JOIN prompts p ON p.workspace_id = w.id AND p.deleted_at IS NULL AND (p.slug = %(slug)s
  OR (p.id = coalesce((SELECT a.prompt_id FROM prompt_aliases a
        WHERE a.workspace_id = w.id AND a.slug = %(slug)s), %(prompt)s::uuid)
      AND NOT EXISTS (SELECT 1 FROM prompts q WHERE q.workspace_id = w.id
        AND q.slug = %(slug)s AND q.deleted_at IS NULL)))
LEFT JOIN prompt_versions v ON v.prompt_id = p.id
  AND (v.published_at IS NOT NULL OR %(drafts)s)
  AND v.id = CASE %(kind)s
    WHEN 'number' THEN (SELECT n.id FROM prompt_versions n
      WHERE n.prompt_id = p.id AND n.number::text = %(selector)s)
    WHEN 'id' THEN (SELECT n.id FROM prompt_versions n
      WHERE n.prompt_id = p.id AND n.id::text = %(selector)s)
    WHEN 'tag' THEN (SELECT t.version_id FROM prompt_tags t
      WHERE t.prompt_id = p.id AND t.tag = %(selector)s)
    WHEN 'pin' THEN (SELECT o.version_id FROM environment_pins o
      JOIN environments i ON i.id = o.environment_id
      WHERE o.prompt_id = p.id
        AND (i.is_default OR lower(i.name) = lower(%(environment)s::text))
        AND i.deleted_at IS NULL AND i.deleting_at IS NULL
      ORDER BY coalesce(lower(i.name) = lower(%(environment)s::text), false) DESC LIMIT 1)
    ELSE (SELECT n.id FROM prompt_versions n WHERE n.prompt_id = p.id
      AND n.published_at IS NOT NULL ORDER BY n.published_at DESC, n.number DESC LIMIT 1) END
LEFT JOIN environments e ON e.workspace_id = w.id AND e.deleted_at IS NULL
  AND e.deleting_at IS NULL AND CASE WHEN %(environment)s::text IS NULL THEN e.is_default
    ELSE lower(e.name) = lower(%(environment)s) END
WHERE w.id = %(workspace)s
"""


async def resolve(
    store: Store,
    workspace_id: WorkspaceId,
    slug: str,
    kind_selector: tuple[str, str],
    environment: str | None,
    *,
    drafts: bool = False,
) -> Resolved:
    """Find a published version and an environment as of one moment; parts not found are `None`.

    A prompt's id will do as its slug. With `drafts` a version need not be published to be found by
    its number or id.
    """
    kind, selector = kind_selector
    rows = await store.fetch(
        _RESOLVE,
        {
            "workspace": workspace_id,
            "slug": slug,
            "prompt": parse(slug),
            "kind": kind,
            "selector": selector,
            "environment": environment,
            "drafts": drafts,
        },
    )
    return Resolved(*rows[0])
