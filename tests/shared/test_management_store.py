"""What the store guarantees even when nobody checked before."""

import pytest
from sqlalchemy.exc import IntegrityError

from shared.deps import Deps
from shared.errors import ConflictError
from shared.ids import EnvironmentId, VersionId, WorkspaceId, new_id
from shared.store import prompts, reading, workspaces
from tests.factories import Tenant


async def test_slug_is_given_once_without_a_check_before(deps: Deps, tenant: Tenant) -> None:
    async with deps.store.transaction() as tx:
        await prompts.insert(tx, tenant.workspace_id, "greeting", "x", "")

    with pytest.raises(ConflictError) as caught:
        async with deps.store.transaction() as tx:
            await prompts.insert(tx, tenant.workspace_id, "greeting", "x", "")

    assert "slug_taken" == caught.value.code


async def test_slug_is_renamed_to_once_without_a_check_before(deps: Deps, tenant: Tenant) -> None:
    async with deps.store.transaction() as tx:
        await prompts.insert(tx, tenant.workspace_id, "greeting", "x", "")
        other = await prompts.insert(tx, tenant.workspace_id, "other", "x", "")

    with pytest.raises(ConflictError) as caught:
        async with deps.store.transaction() as tx:
            await prompts.rename(tx, await tx.merge(other), "greeting")

    assert "slug_taken" == caught.value.code


async def test_environment_name_is_given_once_without_a_check_before(
    deps: Deps, tenant: Tenant
) -> None:
    with pytest.raises(ConflictError) as caught:
        async with deps.store.transaction() as tx:
            await workspaces.insert_environment(
                tx, tenant.workspace_id, EnvironmentId(new_id()), "PRODUCTION", is_default=False
            )

    assert "name_taken" == caught.value.code


async def test_only_a_doubled_value_is_told_as_a_conflict(deps: Deps) -> None:
    nowhere = WorkspaceId(new_id())

    with pytest.raises(IntegrityError, match="violates foreign key constraint"):
        async with deps.store.transaction() as tx:
            await prompts.insert(tx, nowhere, "greeting", "x", "")


async def test_version_is_stored_byte_for_byte(deps: Deps, tenant: Tenant) -> None:
    body = '{"b": 1e308,  "a": {"templates": "\\u00fc"}}'

    async with deps.store.transaction() as tx:
        prompt = await prompts.insert(tx, tenant.workspace_id, "greeting", "x", "")
        version = await prompts.insert_version(tx, prompt, body, '["w"]', publish=False)

    assert body == await reading.version_body(deps.store, VersionId(version.id))
    assert ["w"] == list(version.warnings)
