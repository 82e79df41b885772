"""What was done, in rows that are written with it and read newest first."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, select
from sqlmodel import col

from shared.domain.audit import Action
from shared.domain.paging import Page, Slice
from shared.ids import WorkspaceId, new_id
from shared.store import paging, workspaces
from shared.store.database import Tx
from shared.store.tables import ApiKeyRow, AuditRow


class AuditFilter(msgspec.Struct, frozen=True):
    """Every condition that is not `None` must hold."""

    action: Action | None = None
    key: UUID | None = None
    target_id: UUID | None = None
    target_name: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


async def write(tx: Tx, row: Mapping[str, Any]) -> None:
    """Add an entry; `row` holds the columns, the name of its key is looked up."""
    entry = AuditRow(id=new_id(), **row)
    if entry.key_id is not None:
        name: Any = select(col(ApiKeyRow.name)).where(col(ApiKeyRow.id) == entry.key_id)
        entry.key_name = name.scalar_subquery()
    tx.add(entry)
    await tx.flush()


async def listed(
    tx: Tx,
    workspace_id: WorkspaceId,
    wanted: AuditFilter,
    page: Page,
    *,
    within: Collection[UUID] = (),
) -> Slice[AuditRow]:
    """The entries of a workspace; `within` leaves only those limited to these environments."""
    query = select(AuditRow).where(col(AuditRow.workspace_id) == workspace_id)
    if within:
        query = query.where(workspaces.limited_to(col(AuditRow.environment_ids), within))
    return await paging.fetch(tx, query.where(*_conditions(wanted)), col(AuditRow.id), page)


def _conditions(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    equal: tuple[tuple[Any, object], ...] = (
        (AuditRow.action, wanted.action),
        (AuditRow.key_id, wanted.key),
        (AuditRow.target_id, wanted.target_id),
        (AuditRow.target_name, wanted.target_name),
    )
    for column, value in equal:
        if value is not None:
            conditions.append(col(column) == value)
    if wanted.created_after is not None:
        conditions.append(col(AuditRow.at) > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(col(AuditRow.at) < wanted.created_before)
    return conditions
