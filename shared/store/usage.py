"""What was used: calls, tokens and cost of attempts, added up by what their runs were made of."""

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

import msgspec

from shared.domain.usage import GroupBy
from shared.ids import WorkspaceId
from shared.store.database import Store

MAX_GROUPS = 1_000


class Sum(msgspec.Struct, frozen=True):
    """One group; `name` is null for what has none."""

    name: str | None
    calls: int
    runs: int
    input_tokens: int
    output_tokens: int
    cost_nanousd: int


_NAMES: Mapping[GroupBy, tuple[str, str]] = {
    GroupBy.DAY: ("to_char(a.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')", ""),
    GroupBy.MODEL: ("a.provider || '/' || a.model", ""),
    GroupBy.PROMPT: ("p.slug", "JOIN prompts p ON p.id = r.prompt_id"),
    GroupBy.VERSION: (
        "p.slug || '/' || v.number",
        "JOIN prompts p ON p.id = r.prompt_id JOIN prompt_versions v ON v.id = r.version_id",
    ),
    GroupBy.ENVIRONMENT: ("e.name", "JOIN environments e ON e.id = r.environment_id"),
    GroupBy.KEY: ("r.key_id::text", ""),
    GroupBy.TAG: (
        "t.name",
        "LEFT JOIN LATERAL unnest(r.tags) WITH ORDINALITY AS t(name, place) ON true",
    ),
}


def _statement(by: GroupBy) -> str:
    """The groups, and in the row without one all of them: a run with two tags counts once there."""
    name, joins = _NAMES[by]
    once = "WHERE coalesce(t.place, 1) = 1" if by is GroupBy.TAG else "WHERE true"
    sums = ", ".join(
        f"coalesce(sum({value}) {only}, 0)::bigint"
        for only in ("", f"FILTER ({once})")
        for value in (
            "1",
            "CASE WHEN a.number = 1 THEN 1 ELSE 0 END",
            "(a.usage->>'input')::bigint",
            "(a.usage->>'output')::bigint",
            "a.cost_nanousd",
        )
    )
    return f"""
SELECT grouping(g.name), g.name, {sums}
FROM attempts a JOIN runs r ON r.id = a.run_id {joins}
  CROSS JOIN LATERAL (SELECT {name} AS name) AS g
WHERE a.workspace_id = %(workspace)s AND a.started_at >= %(since)s AND a.started_at < %(until)s
  AND (cardinality(%(within)s::uuid[]) = 0 OR r.environment_id = ANY(%(within)s))
GROUP BY GROUPING SETS ((g.name), ()) ORDER BY 1 DESC, 7 DESC, 2 LIMIT {MAX_GROUPS + 1}"""


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
    place = {"workspace": workspace_id, "since": span[0], "until": span[1]}
    rows = await store.fetch(_STATEMENTS[by], place | {"within": list(within)})
    whole = next(row for row in rows if row[0])
    return Sum(None, *whole[7:]), [Sum(*row[1:7]) for row in rows if not row[0]]
