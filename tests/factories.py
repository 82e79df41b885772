"""Ready-made things for tests: tenants, keys, prompts, submissions."""

from dataclasses import dataclass
from typing import Any

from shared.deps import Deps
from shared.domain import api_keys
from shared.ids import EnvironmentId, KeyId, WorkspaceId, new_id
from shared.services import prompts
from shared.services.keys import Principal
from shared.store import workspaces


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
    """Make a workspace with an admin key and the environment `production`."""
    workspace_id, environment_id = WorkspaceId(new_id()), EnvironmentId(new_id())
    async with deps.store.transaction() as tx:
        await workspaces.insert(
            tx, workspace_id, "a workspace", server_credentials=server_credentials
        )
        await workspaces.insert_environment(
            tx, workspace_id, environment_id, "production", is_default=True
        )
    key, key_id = await a_key(deps, workspace_id)
    principal = Principal(workspace_id, key_id, frozenset({"admin"}), frozenset())
    return Tenant(workspace_id, environment_id, key, principal)


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
