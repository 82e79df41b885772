"""Workspaces, their API keys and their environments."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, select, update
from sqlmodel import col

from shared.domain.paging import Page, Slice
from shared.ids import EnvironmentId, KeyId, WorkspaceId
from shared.store import paging
from shared.store.database import Store, Tx
from shared.store.tables import (
    ApiKeyRow,
    EndpointRow,
    EnvironmentRow,
    EnvironmentVariableRow,
    RunRow,
    WorkspaceRow,
)
from shared.store.tables.base import NOW


async def count(tx: Tx) -> int:
    """How many workspaces there are."""
    return (await tx.scalar(select(func.count()).select_from(WorkspaceRow))) or 0


async def find_named(tx: Tx, name: str) -> WorkspaceId | None:
    """The oldest workspace of this name."""
    query = select(col(WorkspaceRow.id)).order_by(col(WorkspaceRow.id)).limit(1)
    found = await tx.scalar(query.where(col(WorkspaceRow.name) == name))
    return None if found is None else WorkspaceId(found)


async def insert(tx: Tx, workspace_id: WorkspaceId, name: str, *, server_credentials: bool) -> None:
    """Add a workspace."""
    tx.add(WorkspaceRow(id=workspace_id, name=name, server_credentials=server_credentials))
    await tx.flush()


async def change_catalog(tx: Tx, workspace_id: WorkspaceId) -> None:
    """Announce a change that submissions must notice, and hold off other such changes till commit.

    Call it first in the transaction: what is read after it cannot change under us.
    """
    await tx.execute(
        update(WorkspaceRow)
        .where(col(WorkspaceRow.id) == workspace_id)
        .values(catalog_version=col(WorkspaceRow.catalog_version) + 1)
        .execution_options(synchronize_session=False)
    )


class KnownKey(msgspec.Struct, frozen=True):
    """What a good key may do. `environment_ids` empty means all of them."""

    key_id: KeyId
    workspace_id: WorkspaceId
    digest: bytes
    scopes: frozenset[str]
    environment_ids: frozenset[UUID]
    expires_at: datetime | None


_FIND_KEY = """
SELECT id, workspace_id, digest, scopes, environment_ids, expires_at FROM api_keys
WHERE lookup_id = %(lookup)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""
_TOUCH_KEY = """
UPDATE api_keys SET last_used_at = now() WHERE id = ANY(%(ids)s)
  AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
"""


async def find_key(store: Store, lookup_id: str) -> KnownKey | None:
    """A live key by its public part; the caller compares the digest."""
    rows = await store.fetch(_FIND_KEY, {"lookup": lookup_id})
    if not rows:
        return None
    key_id, workspace_id, digest, scopes, environment_ids, expires_at = rows[0]
    return KnownKey(
        key_id=key_id,
        workspace_id=workspace_id,
        digest=bytes(digest),
        scopes=frozenset(scopes),
        environment_ids=frozenset(environment_ids),
        expires_at=expires_at,
    )


async def touch_keys(store: Store, key_ids: Sequence[KeyId]) -> None:
    """Note that keys were used, at most once a minute each."""
    await store.execute(_TOUCH_KEY, {"ids": list(key_ids)})


async def insert_key(tx: Tx, row: Mapping[str, Any]) -> ApiKeyRow:
    """Add a key; `row` holds the columns."""
    key = ApiKeyRow(**row)
    tx.add(key)
    await tx.flush()
    await tx.refresh(key)
    return key


async def keys(tx: Tx, workspace_id: WorkspaceId, page: Page) -> Slice[ApiKeyRow]:
    """Live keys of a workspace."""
    query = select(ApiKeyRow).where(
        col(ApiKeyRow.workspace_id) == workspace_id, col(ApiKeyRow.revoked_at).is_(None)
    )
    return await paging.fetch(tx, query, col(ApiKeyRow.id), page)


async def revoke_key(tx: Tx, workspace_id: WorkspaceId, key_id: KeyId) -> bool:
    """End a key; `False` where there is no live one."""
    result = await tx.execute(
        update(ApiKeyRow)
        .where(
            col(ApiKeyRow.workspace_id) == workspace_id,
            col(ApiKeyRow.id) == key_id,
            col(ApiKeyRow.revoked_at).is_(None),
        )
        .values(revoked_at=NOW)
        .returning(col(ApiKeyRow.id))
        .execution_options(synchronize_session=False)
    )
    return result.first() is not None


async def insert_environment(
    tx: Tx, workspace_id: WorkspaceId, environment_id: EnvironmentId, name: str, *, is_default: bool
) -> EnvironmentRow:
    """Add an environment; a new default takes over from the old one."""
    if is_default:
        await _clear_default(tx, workspace_id)
    row = EnvironmentRow(
        id=environment_id, workspace_id=workspace_id, name=name, is_default=is_default
    )
    tx.add(row)
    await tx.flush()
    await tx.refresh(row)
    return row


async def find_environment(tx: Tx, workspace_id: WorkspaceId, name: str) -> EnvironmentRow | None:
    """A live environment by name, whatever its case."""
    return await tx.scalar(
        select(EnvironmentRow).where(
            col(EnvironmentRow.workspace_id) == workspace_id,
            func.lower(col(EnvironmentRow.name)) == name.lower(),
            col(EnvironmentRow.deleted_at).is_(None),
        )
    )


async def environment_names(tx: Tx, workspace_id: WorkspaceId) -> dict[UUID, str]:
    """Names of the live environments by id."""
    rows = await tx.execute(
        select(col(EnvironmentRow.id), col(EnvironmentRow.name)).where(
            col(EnvironmentRow.workspace_id) == workspace_id,
            col(EnvironmentRow.deleted_at).is_(None),
        )
    )
    return {row.id: row.name for row in rows}


async def environments(tx: Tx, workspace_id: WorkspaceId, page: Page) -> Slice[EnvironmentRow]:
    """Live environments of a workspace."""
    query = select(EnvironmentRow).where(
        col(EnvironmentRow.workspace_id) == workspace_id, col(EnvironmentRow.deleted_at).is_(None)
    )
    return await paging.fetch(tx, query, col(EnvironmentRow.id), page)


async def update_environment(
    tx: Tx, row: EnvironmentRow, *, name: str | None, is_default: bool | None
) -> None:
    """Rename an environment, or make it the default."""
    if is_default:
        await _clear_default(tx, WorkspaceId(row.workspace_id))
        row.is_default = True
    if name is not None:
        row.name = name
    await tx.flush()


async def live_runs_in(tx: Tx, environment_id: UUID) -> bool:
    """Whether any run of an environment still waits or runs."""
    query = select(col(RunRow.id)).where(
        col(RunRow.environment_id) == environment_id,
        col(RunRow.status).in_(("scheduled", "queued", "running")),
    )
    return (await tx.scalar(query.limit(1))) is not None


async def delete_environment(tx: Tx, row: EnvironmentRow) -> None:
    """Hide an environment and destroy its variables."""
    await tx.execute(
        delete(EnvironmentVariableRow).where(col(EnvironmentVariableRow.environment_id) == row.id)
    )
    row.deleted_at = NOW
    await tx.flush()


async def put_variable(tx: Tx, row: EnvironmentRow, key: str, sealed: bytes, last4: str) -> None:
    """Set a sealed variable."""
    await tx.merge(
        EnvironmentVariableRow(
            environment_id=row.id,
            workspace_id=row.workspace_id,
            key=key,
            sealed=sealed,
            last4=last4,
            updated_at=NOW,
        )
    )
    row.variables_version += 1
    await tx.flush()


async def delete_variable(tx: Tx, row: EnvironmentRow, key: str) -> bool:
    """Remove a variable; `False` where there is none."""
    found = await tx.get(EnvironmentVariableRow, (row.id, key))
    if found is None:
        return False
    await tx.delete(found)
    row.variables_version += 1
    await tx.flush()
    return True


async def variables(tx: Tx, environment_id: UUID) -> Sequence[EnvironmentVariableRow]:
    """The variables of an environment by key; only `last4` may be shown."""
    query = select(EnvironmentVariableRow).where(
        col(EnvironmentVariableRow.environment_id) == environment_id
    )
    return (await tx.scalars(query.order_by(col(EnvironmentVariableRow.key)))).all()


async def endpoints_in(tx: Tx, workspace_id: WorkspaceId) -> int:
    """How many live webhook endpoints a workspace has."""
    query = select(func.count()).select_from(EndpointRow)
    return (
        await tx.scalar(
            query.where(
                col(EndpointRow.workspace_id) == workspace_id, col(EndpointRow.deleted_at).is_(None)
            )
        )
    ) or 0


async def _clear_default(tx: Tx, workspace_id: WorkspaceId) -> None:
    await tx.execute(
        update(EnvironmentRow)
        .where(col(EnvironmentRow.workspace_id) == workspace_id, col(EnvironmentRow.is_default))
        .values(is_default=False)
    )
