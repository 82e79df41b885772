"""What was used: calls, tokens and cost, by what the runs were made of.

Whole hours and days are read as they were added up (see `tallying`); what is not in there comes
from the calls themselves: the newest, those still open, and parts of hours.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from shared.domain.usage import GroupBy
from shared.ids import WorkspaceId
from shared.store.database import Store
from shared.store.tallying import CALL, TAGS

MAX_GROUPS = 1_000
_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


class Sum(msgspec.Struct, frozen=True):
    """One group; `name` is null for what has none."""

    name: str | None
    calls: int
    runs: int
    input_tokens: int
    output_tokens: int
    cost_nanousd: int


class _Grouping(msgspec.Struct, frozen=True):
    """Where a group's name is: the kind of sum and its column, and that of a call `c`.

    `label` makes of it what is shown, from what `joins` finds.
    """

    kind: str
    of_sum: str
    of_call: str
    label: str = "nullif(g.name, '')"
    joins: str = ""


_GROUPINGS: Mapping[GroupBy, _Grouping] = {
    GroupBy.DAY: _Grouping(
        "all",
        "to_char(u.begins_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        "to_char(c.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    ),
    GroupBy.MODEL: _Grouping("model", "u.name", "c.model"),
    GroupBy.PROMPT: _Grouping(
        "prompt",
        "u.name",
        "c.prompt_id::text",
        "coalesce(p.slug, g.name)",
        "LEFT JOIN prompts p ON p.id = g.name::uuid",
    ),
    GroupBy.VERSION: _Grouping(
        "version",
        "u.name",
        "c.version_id::text",
        "coalesce(p.slug || '/' || v.number, g.name)",
        """LEFT JOIN prompt_versions v ON v.id = g.name::uuid
    LEFT JOIN prompts p ON p.id = v.prompt_id""",
    ),
    GroupBy.ENVIRONMENT: _Grouping(
        "all",
        "u.environment_id::text",
        "c.environment_id::text",
        "coalesce(e.name, g.name)",
        "LEFT JOIN environments e ON e.id = g.name::uuid",
    ),
    GroupBy.KEY: _Grouping("key", "u.name", "coalesce(c.key_id::text, '')"),
    GroupBy.TAG: _Grouping("tag", "u.name", "t.name"),
}
_FIGURES = ("calls", "runs", "input_tokens", "output_tokens", "cost_nanousd")
_SUMS = ", ".join(f"sum({name})::bigint AS {name}" for name in _FIGURES)
_WITHIN = "(cardinality(%(within)s::uuid[]) = 0 OR {}.environment_id = ANY(%(within)s))"

# Of an hour that the span ends in, the sum is taken, and what began behind the end taken off: so
# calls of deleted runs are counted where their hour began, in one of two adjacent spans.
_CALLS = f"""
WITH mark AS MATERIALIZED (
    SELECT coalesce((SELECT until FROM usage_marks WHERE workspace_id = %(workspace)s),
      '-infinity') AS until
  ),
  call AS MATERIALIZED (
    SELECT {CALL}, d.sign, d.sign AS calls
    FROM mark m CROSS JOIN LATERAL (VALUES
        (1, %(since)s::timestamptz, least(%(first_hour)s::timestamptz, %(until)s, m.until)),
        (1, greatest(%(since)s, m.until), %(until)s),
        (-1, %(until)s, least(%(last_hour)s::timestamptz, m.until))) AS d(sign, since, until)
      JOIN attempts a ON a.workspace_id = %(workspace)s
        AND a.started_at >= d.since AND a.started_at < d.until
      JOIN runs r ON r.id = a.run_id
    WHERE {_WITHIN.format("r")} AND (d.sign = 1 OR NOT EXISTS (SELECT 1 FROM usage_open o
      WHERE o.run_id = a.run_id AND o.number = a.number))
    UNION ALL
    SELECT {CALL}, 1, 1
    FROM usage_open o JOIN attempts a ON a.run_id = o.run_id AND a.number = o.number
      JOIN runs r ON r.id = a.run_id
    WHERE o.workspace_id = %(workspace)s AND o.started_at >= %(first_hour)s
      AND o.started_at < %(until)s AND {_WITHIN.format("r")}
  )"""
_SPANS = """(VALUES ('day', %(days)s::timestamptz[]), ('hour', %(hours_before)s::timestamptz[]),
        ('hour', %(hours_behind)s::timestamptz[])) AS s(span, ends)"""


def _parts(kind: str, of_sum: str, of_call: str, joins: str = "") -> str:
    figures = ", ".join(f"u.{name}" for name in _FIGURES)
    signed = ", ".join(f"c.sign * c.{name}" for name in _FIGURES[1:])
    return f"""
    SELECT {of_sum} AS name, {figures} FROM {_SPANS} JOIN usage_sums u
      ON u.workspace_id = %(workspace)s AND u.kind = '{kind}' AND u.span = s.span
        AND u.begins_at >= s.ends[1] AND u.begins_at < s.ends[2]
    WHERE {_WITHIN.format("u")}
    UNION ALL SELECT {of_call}, c.calls, {signed} FROM call c {joins}"""


def _statement(by: GroupBy) -> str:
    """The groups, and all of it in a row that begins with true: a run with two tags counts once."""
    of = _GROUPINGS[by]
    tags = f"CROSS JOIN LATERAL {TAGS} AS t" if by is GroupBy.TAG else ""
    return f"""{_CALLS},
  grouped AS MATERIALIZED (
    SELECT name, {_SUMS} FROM ({_parts(of.kind, of.of_sum, of.of_call, tags)}) AS x GROUP BY 1
  )
(SELECT false, {of.label} AS label, {_SUMS} FROM grouped g {of.joins}
  GROUP BY 2 HAVING sum(calls) > 0 ORDER BY 7 DESC, 2 LIMIT {MAX_GROUPS})
UNION ALL
SELECT true, NULL, {", ".join(f"coalesce(sum({name}), 0)::bigint" for name in _FIGURES)}
FROM ({_parts("all", "u.name", "''")}) AS x"""


_STATEMENTS = {by: _statement(by) for by in GroupBy}


async def sums(
    store: Store,
    workspace_id: WorkspaceId,
    by: GroupBy,
    span: tuple[datetime, datetime],
    within: Collection[UUID] = (),
) -> tuple[Sum, list[Sum]]:
    """What was used in a span of time: all of it, and by group, what cost most first.

    No more than `MAX_GROUPS` groups are told.
    """
    place = {"workspace": workspace_id, "within": list(within)}
    rows = await store.fetch(_STATEMENTS[by], place | _times(*span))
    whole = next(row for row in rows if row[0])
    return Sum(*whole[1:]), [Sum(*row[1:]) for row in rows if not row[0]]


def _times(since: datetime, until: datetime) -> dict[str, object]:
    """Which days and hours begin in a span, and where the parts of hours at its ends are."""
    first, last = _up(since, _HOUR), _up(until, _HOUR)
    days = _up(first, _DAY), last - (last - _ORIGIN) % _DAY
    whole_days = days if days[0] < days[1] else (first, first)
    return {
        "since": since,
        "until": until,
        "first_hour": first,
        "last_hour": last if first < last else until,
        "days": list(whole_days),
        "hours_before": [first, whole_days[0]],
        "hours_behind": [whole_days[1], last],
    }


def _up(at: datetime, span: timedelta) -> datetime:
    """The first beginning of an hour or a day that is not before a moment."""
    return at + (_ORIGIN - at) % span
