"""Ready-made things for tests: tenants, keys, prompts, submissions."""

from dataclasses import dataclass
from typing import Any

from shared.deps import Deps
from shared.domain import api_keys
from shared.ids import EnvironmentId, KeyId, WorkspaceId, new_id
from shared.services import prompts
from shared.services.keys import Principal
from shared.store import workspaces

_TENANT = """
WITH made AS (
  INSERT INTO workspaces (id, name, server_credentials)
  VALUES (%(workspace)s, 'a workspace', %(server)s)
), environment AS (
  INSERT INTO environments (id, workspace_id, name, is_default)
  VALUES (%(environment)s, %(workspace)s, 'production', true)
)
INSERT INTO api_keys (id, workspace_id, name, lookup_id, digest, scopes)
VALUES (%(key)s, %(workspace)s, 'a key', %(lookup)s, %(digest)s, '{admin}')
"""


@dataclass(frozen=True)
class Tenant:
    """A workspace, its admin key, and the principal that key stands for."""

    workspace_id: WorkspaceId
    environment_id: EnvironmentId
    key: str
    principal: Principal


async def a_key(
    deps: Deps, workspace_id: WorkspaceId, scopes: tuple[str, ...] = ("admin",)
) -> tuple[str, KeyId]:
    """Make a key of a workspace; answers its text and id."""
    made, key_id = api_keys.make(), KeyId(new_id())
    async with deps.store.transaction() as tx:
        await workspaces.insert_key(
            tx,
            {
                "id": key_id,
                "workspace_id": workspace_id,
                "name": "a key",
                "lookup_id": made.lookup_id,
                "digest": made.digest,
                "scopes": list(scopes),
            },
        )
    return made.text, key_id


async def a_tenant(deps: Deps, *, server_credentials: bool = False) -> Tenant:
    """Make a workspace with an admin key and the environment `production`.

    Written as plain rows: a thousand tests' worth of ORM sessions would take longer than the tests.
    """
    key = api_keys.make()
    ids = {name: new_id() for name in ("workspace", "environment", "key")}
    given = {"server": server_credentials, "lookup": key.lookup_id, "digest": key.digest}
    await deps.store.execute(_TENANT, ids | given)
    workspace_id = WorkspaceId(ids["workspace"])
    principal = Principal(workspace_id, KeyId(ids["key"]), frozenset({"admin"}), frozenset())
    return Tenant(workspace_id, EnvironmentId(ids["environment"]), key.text, principal)


async def a_prompt(
    deps: Deps, tenant: Tenant, slug: str = "greeting", body: dict[str, Any] | None = None
) -> None:
    """Make a prompt with one published version, a greeting on `sim/echo` unless told otherwise."""
    body = body or {
        "model": "sim/echo",
        "messages": [{"role": "user", "content": "Hello {{ name }}"}],
    }
    await prompts.create(deps, tenant.principal, prompts.NewPrompt(name=slug, slug=slug))
    await prompts.add_version(deps, tenant.principal, slug, body)
