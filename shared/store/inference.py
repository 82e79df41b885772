"""The hidden prompt of a workspace that direct calls are runs of.

It is deleted from the moment it is made: no list shows it, no slug leads to it, and its runs keep
pointing at it like those of any deleted prompt.
"""

from uuid import UUID

from shared.ids import WorkspaceId
from shared.store import aliases
from shared.store.database import Store
from shared.store.submitting import Resolved

_RESOLVE = f"""
SELECT w.catalog_version, p.id, p.slug, v.id, v.number, NULL, v.body::text, e.id, e.name, true,
  e.max_queued_runs, {aliases.AS_JSON}, w.accounted
FROM workspaces w
LEFT JOIN prompts p ON p.workspace_id = w.id AND p.id = %(prompt)s
LEFT JOIN prompt_versions v ON v.prompt_id = p.id AND v.id = %(version)s
LEFT JOIN environments e ON e.workspace_id = w.id AND e.deleted_at IS NULL
  AND e.deleting_at IS NULL AND CASE WHEN %(environment)s::text IS NULL THEN e.is_default
    ELSE lower(e.name) = lower(%(environment)s) END
WHERE w.id = %(workspace)s
"""
_MAKE = """
WITH prompt AS (
  INSERT INTO prompts (id, workspace_id, slug, name, description, last_number, deleted_at)
  VALUES (%(prompt)s, %(workspace)s, %(slug)s, 'Direct calls', '', 1, now())
  ON CONFLICT DO NOTHING
)
INSERT INTO prompt_versions (id, workspace_id, prompt_id, number, body, published_at)
VALUES (%(version)s, %(workspace)s, %(prompt)s, 1, %(body)s::json, now())
ON CONFLICT DO NOTHING
"""
Names = tuple[UUID, UUID]
"""The ids of the prompt and of its version."""


async def resolve(
    store: Store, workspace_id: WorkspaceId, names: Names, environment: str | None
) -> Resolved:
    """The hidden prompt and an environment as of one moment; parts not found are `None`."""
    rows = await store.fetch(
        _RESOLVE,
        {
            "workspace": workspace_id,
            "prompt": names[0],
            "version": names[1],
            "environment": environment,
        },
    )
    return Resolved(*rows[0])


async def make(
    store: Store, workspace_id: WorkspaceId, names: Names, written: tuple[str, str]
) -> None:
    """Make the prompt and its version, unless somebody has meanwhile; `written` are slug and body.

    Both are one statement, so one transaction.
    """
    prompt_id, version_id = names
    slug, body = written
    given = {"prompt": prompt_id, "version": version_id, "slug": slug, "body": body}
    await store.execute(_MAKE, given | {"workspace": workspace_id})
