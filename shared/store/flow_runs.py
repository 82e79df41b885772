"""Runs as the flows door shows them: every call with what was sent and what came back."""

from collections.abc import Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from shared.ids import RunId, WorkspaceId, parse
from shared.store.database import Store
from shared.store.run_json import WITHIN, moment

_TEXT = """CASE WHEN a.late_output IS NOT NULL THEN a.late_output
  WHEN a.outcome IN ('succeeded', 'incomplete') AND NOT a.late THEN r.output END"""
_CALLS = f"""(SELECT coalesce(json_agg(json_build_object(
    'number', a.number, 'startedAt', {moment("a.started_at")},
    'finishedAt', {moment("a.finished_at")},
    'milliseconds', round(extract(epoch FROM a.finished_at - a.started_at) * 1000)::bigint,
    'provider', a.provider, 'model', a.model,
    'outcome', a.outcome, 'usage', a.usage, 'costNanousd', a.cost_nanousd,
    'text', {_TEXT}, 'verbatim', a.verbatim,
    'error', CASE WHEN a.error_code IS NOT NULL THEN json_build_object(
      'code', a.error_code, 'message', a.error_message) END) ORDER BY a.number), '[]'::json)
  FROM attempts a WHERE a.run_id = r.id)"""
_FACTS = f"""
SELECT r.id, r.workspace_id, r.environment_id, json_build_object(
    'id', r.id, 'workspaceId', r.workspace_id, 'flowId', r.prompt_id,
    'versionId', r.version_id, 'version', v.number, 'environment', e.name,
    'status', r.status, 'model', r.model, 'flow', r.flow,
    'erased', r.contents_erased_at IS NOT NULL,
    'inputs', CASE WHEN r.contents_erased_at IS NULL THEN r.inputs ELSE '{{}}' END,
    'messages', r.messages, 'params', r.params, 'costNanousd', r.cost_nanousd,
    'error', CASE WHEN r.error_code IS NOT NULL THEN json_build_object('code', r.error_code,
      'message', r.error_message, 'origin', r.error_origin) END,
    'incompleteReason', r.incomplete_reason, 'createdAt', {moment("r.created_at")},
    'finishedAt', {moment("r.finished_at")},
    'milliseconds', round(extract(epoch FROM r.finished_at - r.created_at) * 1000)::bigint,
    'balanceNanousd', (SELECT c.balance_nanousd FROM accounts c
      WHERE c.workspace_id = r.workspace_id AND c.metered),
    'calls', {_CALLS})::text
FROM runs r JOIN prompts p ON p.id = r.prompt_id JOIN prompt_versions v ON v.id = r.version_id
  JOIN environments e ON e.id = r.environment_id
"""
_ENDED = f"{_FACTS} WHERE r.id = ANY(%(runs)s)"
_OF_FLOW = f"""{_FACTS}
WHERE r.workspace_id = %(workspace)s AND r.id = %(run)s AND {WITHIN}
  AND (p.slug = %(flow)s OR p.id = %(flow_id)s OR EXISTS (SELECT 1 FROM prompt_aliases x
    WHERE x.workspace_id = r.workspace_id AND x.slug = %(flow)s AND x.prompt_id = p.id))"""


class Facts(NamedTuple):
    """A run with its calls as JSON text, and whose it is."""

    workspace_id: UUID
    environment_id: UUID
    text: str


async def facts(store: Store, runs: Sequence[RunId]) -> list[Facts | None]:
    """Runs as they are, of whichever workspace, in the order asked for."""
    rows = await store.fetch(_ENDED, {"runs": list(runs)})
    found = {row[0]: Facts(*row[1:]) for row in rows}
    return [found.get(run) for run in runs]


async def facts_of_flow(
    store: Store,
    workspace_id: WorkspaceId,
    flow: str,
    run_id: RunId,
    within: Collection[UUID] = (),
) -> str | None:
    """The JSON text of a run of this flow, named by slug or id."""
    rows = await store.fetch(
        _OF_FLOW,
        {
            "workspace": workspace_id,
            "run": run_id,
            "within": list(within),
            "flow": flow,
            "flow_id": parse(flow),
        },
    )
    return rows[0][3] if rows else None
