"""Reading runs: PostgreSQL writes the JSON, we pass it through."""

from collections.abc import Collection
from uuid import UUID

import msgspec

from shared.ids import RunId, VersionId, WorkspaceId
from shared.store.database import Store
from shared.store.run_json import JOINS, PROMPT_RUN, RUN, WITHIN

_RUN = f"""SELECT {RUN}::text FROM runs r {JOINS}
WHERE r.workspace_id = %(workspace)s AND r.id = %(run)s AND {WITHIN}"""
_PROMPT_RUN = f"""SELECT {PROMPT_RUN}::text FROM runs r
WHERE r.workspace_id = %(workspace)s AND r.id = %(run)s AND {WITHIN}"""
_VERSION = "SELECT v.body::text FROM prompt_versions v WHERE v.id = %(version)s"
_OVER = "SELECT id FROM runs WHERE id = ANY(%(ids)s) AND finished_at IS NOT NULL"
_TO_REPLAY = f"""
SELECT p.slug, v.id::text, r.tag, e.name, r.inputs::text, r.metadata::text, r.tags, r.priority,
  r.channel, r.max_attempts, r.max_duration_s, r.on_unknown_outcome, r.params::text,
  CASE WHEN r.model_overridden THEN r.model END, r.contents_erased_at IS NOT NULL, r.max_nanousd,
  r.flow::text
FROM runs r JOIN prompts p ON p.id = r.prompt_id AND p.deleted_at IS NULL
  JOIN prompt_versions v ON v.id = r.version_id JOIN environments e ON e.id = r.environment_id
WHERE r.workspace_id = %(workspace)s AND r.id = %(run)s AND {WITHIN}
"""
_CREDENTIALS = """
SELECT w.server_credentials, ARRAY(SELECT DISTINCT x.key FROM environment_variables x
  JOIN environments e ON e.id = x.environment_id AND e.deleted_at IS NULL
  WHERE e.workspace_id = w.id AND x.key = ANY(%(names)s)
    AND (e.id = ANY(%(within)s) OR %(within)s = '{}'::uuid[]))
FROM workspaces w WHERE w.id = %(workspace)s
"""
_VARIABLES = """
SELECT key, sealed FROM environment_variables WHERE environment_id = %(environment)s
"""


async def run(
    store: Store, workspace_id: WorkspaceId, run_id: RunId, within: Collection[UUID] = ()
) -> str | None:
    """The whole run of the native door, as JSON text."""
    rows = await store.fetch(
        _RUN, {"workspace": workspace_id, "run": run_id, "within": list(within)}
    )
    return rows[0][0] if rows else None


async def prompt_run(
    store: Store, workspace_id: WorkspaceId, run_id: RunId, within: Collection[UUID] = ()
) -> str | None:
    """The run as the prompts door shows it, as JSON text."""
    rows = await store.fetch(
        _PROMPT_RUN, {"workspace": workspace_id, "run": run_id, "within": list(within)}
    )
    return rows[0][0] if rows else None


class ToReplay(msgspec.Struct, frozen=True):
    """What a run was asked for; JSON documents as texts."""

    slug: str
    version_id: str
    tag: str | None
    environment: str
    inputs: str
    metadata: str
    tags: list[str]
    priority: str
    channel: str
    max_attempts: int
    max_duration_s: int
    on_unknown_outcome: str
    params: str | None
    model: str | None
    erased: bool
    max_nanousd: int | None
    flow: str | None


async def to_replay(
    store: Store, workspace_id: WorkspaceId, run_id: RunId, within: Collection[UUID] = ()
) -> ToReplay | None:
    """What a run was asked for; `None` too when its prompt was deleted."""
    rows = await store.fetch(
        _TO_REPLAY, {"workspace": workspace_id, "run": run_id, "within": list(within)}
    )
    return ToReplay(*rows[0]) if rows else None


async def over(store: Store, run_ids: Collection[RunId]) -> list[RunId]:
    """Those of the given runs that have ended."""
    rows = await store.fetch(_OVER, {"ids": list(run_ids)})
    return [RunId(row[0]) for row in rows]


async def version_body(store: Store, version_id: VersionId) -> str:
    """The stored body of a version; versions a run points at are never deleted."""
    rows = await store.fetch(_VERSION, {"version": version_id})
    return str(rows[0][0])


async def credentials(
    store: Store, workspace_id: WorkspaceId, names: Collection[str], within: Collection[UUID]
) -> tuple[bool, frozenset[str]]:
    """Whether the workspace may use the server's keys, and which of the named variables it has.

    In any of the environments `within`; an empty collection means all.
    """
    rows = await store.fetch(
        _CREDENTIALS, {"workspace": workspace_id, "names": list(names), "within": list(within)}
    )
    return rows[0][0], frozenset(rows[0][1])


async def variables(store: Store, environment_id: object) -> dict[str, bytes]:
    """The sealed variables of an environment."""
    rows = await store.fetch(_VARIABLES, {"environment": environment_id})
    return {key: bytes(sealed) for key, sealed in rows}
