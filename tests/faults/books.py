"""Whether `GET /usage` says what the calls and the ledger say, in every way it adds up."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.domain.usage import MAX_SPAN, GroupBy
from shared.store import usage
from shared.store.database import Store
from shared.store.usage import Sum
from tests.faults.referee import Violation
from tests.faults.rig import Rig

_NAMES: Mapping[GroupBy, str] = {
    GroupBy.DAY: "to_char(a.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    GroupBy.PROMPT: "(SELECT slug FROM prompts WHERE id = r.prompt_id)",
    GroupBy.VERSION: """(SELECT p.slug || '/' || v.number FROM prompts p
      JOIN prompt_versions v ON v.prompt_id = p.id WHERE v.id = r.version_id)""",
    GroupBy.ENVIRONMENT: "(SELECT name FROM environments WHERE id = r.environment_id)",
    GroupBy.MODEL: "a.provider || '/' || a.model",
    GroupBy.KEY: "r.key_id::text",
    GroupBy.TAG: "unnest(CASE WHEN r.tags = '{}' THEN ARRAY[NULL::text] ELSE r.tags END)",
}
_CALLS = """
SELECT x.name, count(*) AS calls, count(*) FILTER (WHERE number = 1) AS runs,
  coalesce(sum((x.usage->>'input')::bigint), 0)::bigint AS input_tokens,
  coalesce(sum((x.usage->>'output')::bigint), 0)::bigint AS output_tokens,
  coalesce(sum(x.cost_nanousd), 0)::bigint AS cost_nanousd
FROM (SELECT {} AS name, a.* FROM attempts a JOIN runs r ON r.id = a.run_id) AS x GROUP BY 1
"""
_CHARGED = """
SELECT -coalesce(sum(amount_nanousd), 0)::bigint AS cost FROM ledger
WHERE run_id IN (SELECT id FROM runs)
"""
ADDED_UP = """
SELECT coalesce(sum(calls), 0)::int AS calls FROM usage_sums WHERE kind = 'all' AND span = 'day'
"""


async def usage_violations(rig: Rig) -> list[Violation]:
    """Where usage differs: from the calls in any group, or in all from the ledger."""
    store = Store(rig.servers.database_url, size=1)
    await store.open(wait_s=10)
    try:
        return [one for by in GroupBy for one in await _compare(rig, store, by)]
    finally:
        await store.close()


async def _compare(rig: Rig, store: Store, by: GroupBy) -> list[Violation]:
    until = datetime.now(UTC) + timedelta(minutes=5)  # noqa: TID251 (as a client would ask)
    span = until - MAX_SPAN, until
    whole, groups = await usage.sums(store, rig.tenant.workspace_id, by, span)
    rows = await rig.rows(_CALLS.format(_NAMES[by]))
    (charged,) = await rig.rows(_CHARGED)
    return list(_differences(by, groups, rows, whole, charged["cost"]))


def _differences(
    by: GroupBy, groups: list[Sum], rows: list[dict[str, Any]], whole: Sum, charged: int
) -> Iterator[Violation]:
    said = {group.name: group for group in groups}
    meant = {row["name"]: Sum(**row) for row in rows}
    if said != meant:
        found = {"by": by.value, "says": str(said), "should say": str(meant)}
        yield Violation(35, "usage does not say what the calls say", found)
    if whole.cost_nanousd != charged:
        money = {"by": by.value, "says": whole.cost_nanousd, "should say": charged}
        yield Violation(35, "usage does not add up to the ledger", money)
