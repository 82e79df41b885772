"""Lists of runs: filters become conditions, pages are cut by id."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

import msgspec

from shared.domain.paging import Page, Slice
from shared.domain.states import Lane, RunStatus
from shared.ids import WorkspaceId
from shared.store import paging
from shared.store.database import Store
from shared.store.paging import JsonList, Listed
from shared.store.run_json import FIELDS, JOINS, WITHIN, build

# What a list leaves out can be long; the run itself has it.
_LISTED = build(
    name for name in FIELDS if name not in {"messages", "attempts", "inputs", "emitted"}
)
_LIST = JsonList("runs", "r", _LISTED, JOINS)


class RunFilter(msgspec.Struct, frozen=True):
    """Every condition that is not `None` must hold. `metadata` pairs all have to be there."""

    statuses: tuple[RunStatus, ...] = ()
    prompt: str | None = None
    version: int | None = None
    tag: str | None = None
    environment: str | None = None
    priority: Lane | None = None
    thread: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: tuple[tuple[str, str], ...] = ()


_CONDITIONS = {
    "statuses": "r.status = ANY(%(statuses)s)",
    "prompt": """r.prompt_id IN (SELECT q.id FROM prompts q
      WHERE q.workspace_id = %(workspace)s AND q.slug = %(prompt)s AND q.deleted_at IS NULL
      UNION SELECT a.prompt_id FROM prompt_aliases a
      WHERE a.workspace_id = %(workspace)s AND a.slug = %(prompt)s)""",
    "version": """r.version_id IN (SELECT n.id FROM prompt_versions n
      WHERE n.workspace_id = %(workspace)s AND n.number = %(version)s)""",
    "tag": "%(tag)s = ANY(r.tags)",
    "environment": """r.environment_id IN (SELECT x.id FROM environments x
      WHERE x.workspace_id = %(workspace)s AND lower(x.name) = lower(%(environment)s))""",
    "priority": "r.priority = %(priority)s",
    "thread": "r.thread_id = %(thread)s",
    "created_after": "r.created_at > %(created_after)s",
    "created_before": "r.created_at < %(created_before)s",
    "metadata": "r.metadata @> %(metadata)s::jsonb",
}


async def runs(
    store: Store,
    workspace_id: WorkspaceId,
    wanted: RunFilter,
    page: Page,
    within: Collection[UUID] = (),
) -> Slice[Listed]:
    """The runs of a workspace that fit, newest first."""
    values: dict[str, object] = {"workspace": workspace_id, "within": list(within)}
    conditions = ["r.workspace_id = %(workspace)s"]
    if within:
        conditions.append(WITHIN)
    for name, condition in _CONDITIONS.items():
        value = getattr(wanted, name)
        if value not in (None, ()):
            conditions.append(condition)
            values[name] = _parameter(name, value)
    return await paging.fetch_json(store, _LIST, conditions, values, page)


def _parameter(name: str, value: object) -> object:
    if name == "metadata":
        return msgspec.json.encode(dict(value)).decode()  # type: ignore[call-overload]  # pairs
    if name == "statuses":
        return [str(status) for status in value]  # type: ignore[attr-defined]  # a tuple
    return str(value) if name == "priority" else value


_QUEUE = f"""
SELECT l.lane, count(r.id) FILTER (WHERE r.status <> 'running'),
  count(r.id) FILTER (WHERE r.status = 'running'),
  to_char((min(r.created_at) FILTER (WHERE r.status <> 'running')) AT TIME ZONE 'UTC',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  EXISTS (SELECT 1 FROM lane_pauses z WHERE z.lane = l.lane)
FROM unnest(%(lanes)s::text[]) AS l(lane) LEFT JOIN runs r ON r.workspace_id = %(workspace)s
  AND r.priority = l.lane AND r.status IN ('queued', 'scheduled', 'running') AND {WITHIN}
GROUP BY l.lane
"""


async def queue(
    store: Store, workspace_id: WorkspaceId, within: Collection[UUID] = ()
) -> dict[Lane, tuple[int, int, str | None, bool]]:
    """By lane: runs of the workspace that wait and run, the oldest that waits, lane paused."""
    lanes = [lane.value for lane in Lane]
    rows = await store.fetch(
        _QUEUE, {"workspace": workspace_id, "lanes": lanes, "within": list(within)}
    )
    return {Lane(row[0]): (row[1], row[2], row[3], row[4]) for row in rows}


LOOKED_AT = 5_000
"""Runs of a lane, whosever they are, among which those ahead are counted."""

# The limit is no parameter: a plan made for any limit sorts the whole lane.
_AHEAD = f"""
SELECT count(*) FROM (
  SELECT r.workspace_id, r.environment_id FROM runs r WHERE r.priority = %(lane)s
    AND r.status = 'queued' AND r.available_at <= now() ORDER BY r.available_at LIMIT {LOOKED_AT}
) AS r WHERE r.workspace_id = %(workspace)s AND {WITHIN}
"""


async def ahead(
    store: Store, workspace_id: WorkspaceId, lane: Lane, within: Collection[UUID] = ()
) -> int:
    """How many runs of a workspace are among the `LOOKED_AT` that a lane starts next."""
    values = {"workspace": workspace_id, "lane": lane.value, "within": list(within)}
    return int((await store.fetch(_AHEAD, values))[0][0])
