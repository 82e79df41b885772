"""Webhook endpoints and their signing secrets."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, update
from sqlmodel import col

from shared.domain.paging import Page, Slice
from shared.ids import EndpointId, WorkspaceId
from shared.store import paging
from shared.store.database import Tx
from shared.store.tables import DeliveryRow, EndpointRow, WebhookSecretRow
from shared.store.tables.base import NOW


async def insert(tx: Tx, row: Mapping[str, Any]) -> EndpointRow:
    """Add an endpoint; `row` holds the columns."""
    endpoint = EndpointRow(**row)
    tx.add(endpoint)
    await tx.flush()
    await tx.refresh(endpoint)
    return endpoint


async def find(tx: Tx, workspace_id: WorkspaceId, endpoint_id: EndpointId) -> EndpointRow | None:
    """A live endpoint."""
    return await tx.scalar(_live(workspace_id).where(col(EndpointRow.id) == endpoint_id))


async def listed(tx: Tx, workspace_id: WorkspaceId, page: Page) -> Slice[EndpointRow]:
    """Live endpoints of a workspace."""
    return await paging.fetch(tx, _live(workspace_id), col(EndpointRow.id), page)


async def change(tx: Tx, row: EndpointRow, values: Mapping[str, Any]) -> None:
    """Set columns of an endpoint."""
    for name, value in values.items():
        setattr(row, name, value)
    await tx.flush()


async def remove(tx: Tx, row: EndpointRow) -> None:
    """Hide an endpoint and cancel what was still to be delivered to it."""
    row.deleted_at = NOW
    await tx.execute(
        update(DeliveryRow)
        .where(col(DeliveryRow.endpoint_id) == row.id, col(DeliveryRow.status) == "pending")
        .values(status="canceled", finished_at=NOW)
        .execution_options(synchronize_session=False)
    )
    await tx.flush()


async def insert_secret(
    tx: Tx, secret_id: UUID, workspace_id: WorkspaceId, endpoint_id: EndpointId, sealed: bytes
) -> None:
    """Add a signing secret."""
    tx.add(
        WebhookSecretRow(
            id=secret_id, workspace_id=workspace_id, endpoint_id=endpoint_id, sealed=sealed
        )
    )
    await tx.flush()


def _live(workspace_id: WorkspaceId) -> Select[EndpointRow]:
    return select(EndpointRow).where(
        col(EndpointRow.workspace_id) == workspace_id, col(EndpointRow.deleted_at).is_(None)
    )
