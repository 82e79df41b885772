"""Workspaces, their API keys and their environments."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlmodel import col

from shared.domain.paging import Page, Slice
from shared.errors import ConflictError
from shared.ids import EnvironmentId, KeyId, WorkspaceId
from shared.store import conflicts, paging
from shared.store.database import Store, Tx
from shared.store.tables import (
    ApiKeyRow,
    EnvironmentRow,
    EnvironmentVariableRow,
    PinRow,
    WorkspaceRow,
)
from shared.store.tables.base import NOW


async def count(tx: Tx) -> int:
    """How many workspaces there are."""
    return (await tx.scalar(select(func.count()).select_from(WorkspaceRow))) or 0


async def insert(tx: Tx, workspace_id: WorkspaceId, name: str, *, server_credentials: bool) -> None:
    """Add a workspace."""
    tx.add(WorkspaceRow(id=workspace_id, name=name, server_credentials=server_credentials))
    await tx.flush()


async def configure_workspace(
    tx: Tx, workspace_id: WorkspaceId, columns: Mapping[str, int | None]
) -> str | None:
    """Set what a workspace keeps, by column; answers its name, `None` where there is none."""
    changed = update(WorkspaceRow).where(col(WorkspaceRow.id) == workspace_id).values(columns)
    return await tx.scalar(changed.returning(col(WorkspaceRow.name)))


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


async def hold(tx: Tx, workspace_id: WorkspaceId) -> bool:
    """Hold off other changes like `change_catalog`, announcing nothing. `False`: no workspace."""
    query = select(col(WorkspaceRow.id)).where(col(WorkspaceRow.id) == workspace_id)
    # Not FOR UPDATE: that would also hold off every row that points at the workspace.
    return (await tx.scalar(query.with_for_update(key_share=True))) is not None


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


async def key_names(tx: Tx, workspace_id: WorkspaceId, ids: Iterable[UUID]) -> dict[UUID, str]:
    """Names of keys by id, those of revoked ones too."""
    rows = await tx.execute(
        select(col(ApiKeyRow.id), col(ApiKeyRow.name)).where(
            col(ApiKeyRow.workspace_id) == workspace_id, col(ApiKeyRow.id).in_(set(ids))
        )
    )
    return dict(rows.all())


async def touch_keys(store: Store, key_ids: Sequence[KeyId]) -> None:
    """Note that keys were used, at most once a minute each."""
    await store.execute(_TOUCH_KEY, {"ids": list(key_ids)})


async def insert_key(tx: Tx, row: Mapping[str, Any]) -> ApiKeyRow:
    """Add a key; `row` holds the columns."""
    key = ApiKeyRow(**row)
    tx.add(key)
    with conflicts.told_as(ConflictError("By a rare chance this key exists. Please try again.")):
        await tx.flush()
    await tx.refresh(key)
    return key


async def keys(
    tx: Tx, workspace_id: WorkspaceId, page: Page, *, within: Collection[UUID] = ()
) -> Slice[ApiKeyRow]:
    """Live keys of a workspace; `within` leaves only those limited to these environments."""
    query = select(ApiKeyRow).where(
        col(ApiKeyRow.workspace_id) == workspace_id, col(ApiKeyRow.revoked_at).is_(None)
    )
    if within:
        query = query.where(limited_to(col(ApiKeyRow.environment_ids), within))
    return await paging.fetch(tx, query, col(ApiKeyRow.id), page)


async def find_live_key(tx: Tx, workspace_id: WorkspaceId, key_id: KeyId) -> ApiKeyRow | None:
    """A key that is not revoked."""
    return await tx.scalar(
        select(ApiKeyRow)
        .where(
            col(ApiKeyRow.workspace_id) == workspace_id,
            col(ApiKeyRow.id) == key_id,
            col(ApiKeyRow.revoked_at).is_(None),
        )
        .with_for_update()
    )


async def revoke_key(tx: Tx, row: ApiKeyRow) -> None:
    """End a key."""
    row.revoked_at = NOW
    await tx.flush()


async def insert_environment(
    tx: Tx, workspace_id: WorkspaceId, environment_id: EnvironmentId, name: str, *, is_default: bool
) -> EnvironmentRow:
    """Add an environment; a new default takes over. Raises `ConflictError` for a taken name."""
    if is_default:
        await _clear_default(tx, workspace_id)
    row = EnvironmentRow(
        id=environment_id, workspace_id=workspace_id, name=name, is_default=is_default
    )
    tx.add(row)
    with conflicts.told_as(name_taken(name)):
        await tx.flush()
    await tx.refresh(row)
    return row


async def has_environments(tx: Tx, workspace_id: WorkspaceId) -> bool:
    """Whether a workspace has a live environment."""
    query = select(col(EnvironmentRow.id)).where(
        col(EnvironmentRow.workspace_id) == workspace_id, col(EnvironmentRow.deleted_at).is_(None)
    )
    return (await tx.scalar(query.limit(1))) is not None


async def live_environments(tx: Tx, workspace_id: WorkspaceId) -> set[UUID]:
    """The ids of a workspace's environments."""
    query = select(col(EnvironmentRow.id)).where(
        col(EnvironmentRow.workspace_id) == workspace_id, col(EnvironmentRow.deleted_at).is_(None)
    )
    return set((await tx.scalars(query)).all())


async def find_environment(tx: Tx, workspace_id: WorkspaceId, name: str) -> EnvironmentRow | None:
    """A live environment by name, whatever its case."""
    return await tx.scalar(
        select(EnvironmentRow).where(
            col(EnvironmentRow.workspace_id) == workspace_id,
            func.lower(col(EnvironmentRow.name)) == name.lower(),
            col(EnvironmentRow.deleted_at).is_(None),
        )
    )


async def environment_ids(
    tx: Tx, workspace_id: WorkspaceId, names: Iterable[str]
) -> dict[str, UUID]:
    """Ids of environments by lower-case name; those unknown or on their way out are left out."""
    lower = func.lower(col(EnvironmentRow.name))
    rows = await tx.execute(
        select(lower, col(EnvironmentRow.id)).where(
            col(EnvironmentRow.workspace_id) == workspace_id,
            lower.in_({name.lower() for name in names}),
            col(EnvironmentRow.deleted_at).is_(None),
            col(EnvironmentRow.deleting_at).is_(None),
        )
    )
    return dict(rows.all())


async def environment_names(
    tx: Tx, workspace_id: WorkspaceId, environment_ids: Iterable[UUID]
) -> dict[UUID, str]:
    """Names of environments by id, those of deleted ones too."""
    rows = await tx.execute(
        select(col(EnvironmentRow.id), col(EnvironmentRow.name)).where(
            col(EnvironmentRow.workspace_id) == workspace_id,
            col(EnvironmentRow.id).in_(set(environment_ids)),
        )
    )
    return dict(rows.all())


async def environments(
    tx: Tx, workspace_id: WorkspaceId, page: Page, *, within: Collection[UUID] = ()
) -> Slice[EnvironmentRow]:
    """Live environments of a workspace; `within` leaves only these."""
    query = select(EnvironmentRow).where(
        col(EnvironmentRow.workspace_id) == workspace_id, col(EnvironmentRow.deleted_at).is_(None)
    )
    if within:
        query = query.where(col(EnvironmentRow.id).in_(within))
    return await paging.fetch(tx, query, col(EnvironmentRow.id), page)


async def update_environment(
    tx: Tx, row: EnvironmentRow, *, name: str | None, is_default: bool | None
) -> None:
    """Rename an environment, or make it the default. Raises `ConflictError` for a taken name."""
    if is_default:
        await _clear_default(tx, WorkspaceId(row.workspace_id))
        row.is_default = True
    if name is not None:
        row.name = name
    with conflicts.told_as(name_taken(row.name)):
        await tx.flush()


async def configure_environment(
    tx: Tx, row: EnvironmentRow, columns: Mapping[str, int | None]
) -> None:
    """Set what an environment keeps and how much it takes, by column."""
    for name, value in columns.items():
        setattr(row, name, value)
    await tx.flush()


def name_taken(name: str) -> ConflictError:
    """The error for a name that another environment has, in whatever case."""
    return ConflictError(f"An environment named '{name}' exists.", code="name_taken")


async def delete_environment(tx: Tx, row: EnvironmentRow) -> None:
    """Hide an environment, destroy its variables and take its pins away."""
    await tx.execute(
        delete(EnvironmentVariableRow).where(col(EnvironmentVariableRow.environment_id) == row.id)
    )
    await tx.execute(delete(PinRow).where(col(PinRow.environment_id) == row.id))
    row.deleted_at = NOW
    await tx.flush()


async def find_variable(tx: Tx, environment_id: UUID, key: str) -> EnvironmentVariableRow | None:
    """A variable by its name."""
    return await tx.get(EnvironmentVariableRow, (environment_id, key))


async def count_variables(tx: Tx, environment_id: UUID) -> int:
    """How many variables an environment has."""
    query = select(func.count()).where(col(EnvironmentVariableRow.environment_id) == environment_id)
    return (await tx.scalar(query)) or 0


async def put_variable(
    tx: Tx, environment: EnvironmentRow, key: str, sealed: bytes, last4: str
) -> EnvironmentVariableRow:
    """Set a sealed variable."""
    row = await find_variable(tx, environment.id, key)
    if row is None:
        row = EnvironmentVariableRow(
            environment_id=environment.id,
            workspace_id=environment.workspace_id,
            key=key,
            sealed=sealed,
            last4=last4,
        )
        tx.add(row)
    row.sealed, row.last4, row.updated_at = sealed, last4, NOW
    environment.variables_version += 1
    await tx.flush()
    await tx.refresh(row)
    return row


async def delete_variable(tx: Tx, row: EnvironmentRow, key: str) -> bool:
    """Remove a variable; `False` where there is none."""
    found = await find_variable(tx, row.id, key)
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


def limited_to(column: Any, environment_ids: Collection[UUID]) -> ColumnElement[bool]:
    """Whether an array of environments names some, and none but these; empty would mean all."""
    return and_(func.cardinality(column) > 0, column.contained_by(list(environment_ids)))


async def _clear_default(tx: Tx, workspace_id: WorkspaceId) -> None:
    await tx.execute(
        update(EnvironmentRow)
        .where(col(EnvironmentRow.workspace_id) == workspace_id, col(EnvironmentRow.is_default))
        .values(is_default=False)
    )
