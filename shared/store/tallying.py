"""Usage is added up: calls, once nothing of theirs can change any more, by hour and by day.

A workspace's mark says how far this has come. Of the calls begun before it, those whose figures may
still change are kept by name in `usage_open`, until they are final or their run is deleted. Each
step is a transaction: what is added and how far it has come are committed together, or not at all.
"""

from datetime import datetime

from shared.ids import WorkspaceId
from shared.store.database import Store

# What a call `a` of a run `r` is counted as. Only its figures ever change.
CALL = """a.workspace_id, a.started_at, r.environment_id, r.prompt_id, r.version_id, r.key_id,
    r.tags, a.provider || '/' || a.model AS model, (a.number = 1)::int AS runs,
    coalesce((a.usage->>'input')::bigint, 0) AS input_tokens,
    coalesce((a.usage->>'output')::bigint, 0) AS output_tokens,
    coalesce(a.cost_nanousd, 0) AS cost_nanousd"""
TAGS = """(SELECT DISTINCT coalesce(x.tag, '') AS name
      FROM (SELECT 1) AS one LEFT JOIN LATERAL unnest(c.tags) AS x(tag) ON true)"""
# A lost call may be answered yet, until it was; one with a hold may yet be settled.
_OPEN = """(a.outcome IS NULL OR a.outcome = 'lost' AND NOT a.late
    OR a.billed = 'unknown' AND EXISTS (SELECT 1 FROM holds h WHERE h.run_id = a.run_id
      AND h.attempt = a.number AND h.settled_at IS NULL))"""
_FIGURES = ("calls", "runs", "input_tokens", "output_tokens", "cost_nanousd")

# First what is alike becomes one row, then each such row one of every kind. Whoever adds does so in
# the order of the key, so that two of them wait for each other at most once.
ADDED = f"""
  alike AS MATERIALIZED (
    SELECT workspace_id, date_trunc('hour', started_at, 'UTC') AS hour, environment_id, prompt_id,
      version_id, key_id, tags, model, count(*) AS calls,
      {", ".join(f"sum({name}) AS {name}" for name in _FIGURES[1:])}
    FROM call GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
  ),
  added AS (
    INSERT INTO usage_sums AS u (workspace_id, kind, span, begins_at, environment_id, name,
      {", ".join(_FIGURES)})
    SELECT c.workspace_id, k.kind, s.span, date_trunc(s.span, c.hour, 'UTC'), c.environment_id,
      k.name, {", ".join(f"sum(c.{name})::bigint" for name in _FIGURES)}
    FROM alike c CROSS JOIN (VALUES ('hour'), ('day')) AS s(span)
      CROSS JOIN LATERAL (VALUES ('all', ''), ('prompt', c.prompt_id::text),
        ('version', c.version_id::text), ('model', c.model), ('key', coalesce(c.key_id::text, ''))
        UNION ALL SELECT 'tag', t.name FROM {TAGS} AS t) AS k(kind, name)
    GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (workspace_id, kind, span, begins_at, environment_id, name) DO UPDATE
      SET {", ".join(f"{name} = u.{name} + excluded.{name}" for name in _FIGURES)}
  )"""

# Asked before the statement that adds, so that this one sees all that was committed until then: a
# call is dated when its transaction begins, and one that still goes on holds the bound back.
_BOUND = """
SELECT least(now() - make_interval(secs => %(lag_s)s), min(xact_start)) FROM pg_stat_activity
WHERE datname = current_database() AND (backend_xid IS NOT NULL OR wait_event_type = 'Lock')
"""
# A mark moves once an hour though there are no calls.
_BEHIND = """
SELECT w.id FROM workspaces w LEFT JOIN usage_marks m ON m.workspace_id = w.id
WHERE m.until IS NULL OR m.until < %(bound)s::timestamptz - interval '1 hour'
  OR EXISTS (SELECT 1 FROM attempts a WHERE a.workspace_id = w.id
    AND a.started_at >= m.until AND a.started_at < %(bound)s)
ORDER BY w.id
"""
_HOLD = """
INSERT INTO usage_marks AS m (workspace_id, until) VALUES (%(workspace)s, '-infinity')
ON CONFLICT (workspace_id) DO UPDATE SET until = m.until
"""
# Calls of one moment are never parted.
_TALLY = f"""
WITH mark AS MATERIALIZED (
    SELECT until FROM usage_marks WHERE workspace_id = %(workspace)s
  ),
  next AS MATERIALIZED (
    SELECT coalesce((SELECT greatest(a.started_at, m.until + interval '1 microsecond')
        FROM attempts a WHERE a.workspace_id = %(workspace)s AND a.started_at >= m.until
          AND a.started_at < %(bound)s ORDER BY a.started_at OFFSET %(limit)s LIMIT 1),
      greatest(m.until, %(bound)s)) AS until
    FROM mark m
  ),
  seen AS MATERIALIZED (
    SELECT {CALL}, a.run_id, a.number, {_OPEN} AS open
    FROM attempts a JOIN runs r ON r.id = a.run_id
    WHERE a.workspace_id = %(workspace)s AND a.started_at >= (SELECT until FROM mark)
      AND a.started_at < (SELECT until FROM next)
  ),
  call AS (SELECT * FROM seen WHERE NOT open),
  kept AS (
    INSERT INTO usage_open (run_id, number, workspace_id, started_at, look_at)
    SELECT run_id, number, workspace_id, started_at, now() FROM seen WHERE open
  ),{ADDED},
  moved AS (
    UPDATE usage_marks m SET until = n.until FROM next n WHERE m.workspace_id = %(workspace)s
  )
SELECT n.until < %(bound)s FROM next n
"""
# The older a call, the rarer the look at it.
_CLOSE = f"""
WITH old AS MATERIALIZED (
    SELECT run_id, number FROM usage_open WHERE look_at <= now()
    ORDER BY look_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
  ),
  final AS MATERIALIZED (
    SELECT a.run_id, a.number FROM old o JOIN attempts a ON a.run_id = o.run_id
      AND a.number = o.number WHERE NOT {_OPEN}
  ),
  gone AS (
    DELETE FROM usage_open o USING final f WHERE o.run_id = f.run_id AND o.number = f.number
    RETURNING o.run_id, o.number
  ),
  later AS (
    UPDATE usage_open o SET look_at = now() + least((now() - o.started_at) / 8, interval '1 day')
    FROM old l WHERE o.run_id = l.run_id AND o.number = l.number
      AND (o.run_id, o.number) NOT IN (SELECT run_id, number FROM final)
  ),
  call AS (
    SELECT {CALL} FROM gone g JOIN attempts a ON a.run_id = g.run_id AND a.number = g.number
      JOIN runs r ON r.id = a.run_id
  ),{ADDED}
SELECT count(*) FROM old
"""


async def bound(store: Store, lag_s: float) -> datetime:
    """The moment before which no call can begin any more that is not to be seen yet."""
    at: datetime = (await store.fetch(_BOUND, {"lag_s": lag_s}))[0][0]
    return at


async def behind(store: Store, until: datetime) -> list[WorkspaceId]:
    """The workspaces whose calls from before then are not all added up."""
    return [WorkspaceId(row[0]) for row in await store.fetch(_BEHIND, {"bound": until})]


async def tally(store: Store, workspace_id: WorkspaceId, until: datetime, limit: int) -> bool:
    """Add up the next calls from before the bound, about so many; answers whether more are left."""
    place = {"workspace": workspace_id, "bound": until, "limit": limit}
    return bool((await store.fetch_behind(_HOLD, _TALLY, place))[0][0])


async def close(store: Store, limit: int) -> bool:
    """Look at so many open calls whose turn it is and add up those that are final.

    Answers whether more may be left.
    """
    return limit == int((await store.fetch(_CLOSE, {"limit": limit}))[0][0])
