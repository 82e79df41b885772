"""Webhook endpoints and their signing secrets."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlmodel import col

from shared.domain.paging import Page, Slice
from shared.ids import EndpointId, WorkspaceId
from shared.store import paging, workspaces
from shared.store.database import Tx
from shared.store.tables import DeliveryRow, EndpointRow, EventRow, WebhookSecretRow
from shared.store.tables.base import NOW

ENVIRONMENT_DELETED = "environment_deleted"
"""Why an endpoint is disabled that still gets what was written for it."""

_LIVE_SECRET = or_(
    col(WebhookSecretRow.expires_at).is_(None), col(WebhookSecretRow.expires_at) > NOW
)


async def insert(tx: Tx, row: Mapping[str, Any]) -> EndpointRow:
    """Add an endpoint; `row` holds the columns."""
    endpoint = EndpointRow(**row)
    tx.add(endpoint)
    await tx.flush()
    await tx.refresh(endpoint)
    return endpoint


async def wanted_environments(
    tx: Tx, workspace_id: WorkspaceId, besides: UUID | None
) -> Sequence[Sequence[UUID]]:
    """The environments of each live endpoint, none meaning all, but for the endpoint `besides`."""
    query = _live(workspace_id).with_only_columns(col(EndpointRow.environment_ids))
    if besides is not None:
        query = query.where(col(EndpointRow.id) != besides)
    return (await tx.scalars(query)).all()


async def find(tx: Tx, workspace_id: WorkspaceId, endpoint_id: EndpointId) -> EndpointRow | None:
    """A live endpoint."""
    return await tx.scalar(_live(workspace_id).where(col(EndpointRow.id) == endpoint_id))


async def listed(
    tx: Tx, workspace_id: WorkspaceId, page: Page, *, within: Collection[UUID] = ()
) -> Slice[EndpointRow]:
    """Live endpoints of a workspace; `within` leaves only those limited to these environments."""
    query = _live(workspace_id)
    if within:
        query = query.where(workspaces.limited_to(col(EndpointRow.environment_ids), within))
    return await paging.fetch(tx, query, col(EndpointRow.id), page)


async def change(tx: Tx, row: EndpointRow, values: Mapping[str, Any]) -> None:
    """Set columns of an endpoint."""
    for name, value in values.items():
        setattr(row, name, value)
    await tx.flush()


async def remove(tx: Tx, row: EndpointRow) -> None:
    """Hide an endpoint and cancel what was still to be delivered to it."""
    row.deleted_at = NOW
    await tx.flush()
    await _cancel_deliveries(tx, col(DeliveryRow.endpoint_id) == row.id)


async def enable(tx: Tx, row: EndpointRow) -> None:
    """Let an endpoint take deliveries again."""
    await change(tx, row, {"disabled_at": None, "disabled_reason": None})


async def leave_environment(tx: Tx, environment_id: UUID, since: datetime | None) -> None:
    """Disable endpoints that name no other environment, and cancel what is due from this one.

    But not events `since` its deletion began: they tell of the runs that were canceled for it.
    """
    alone = _locked(
        select(col(EndpointRow.id)).where(
            workspaces.limited_to(col(EndpointRow.environment_ids), [environment_id]),
            col(EndpointRow.disabled_at).is_(None),
        ),
        col(EndpointRow.id),
    )
    await tx.execute(
        update(EndpointRow)
        .where(col(EndpointRow.id).in_(alone))
        .values(disabled_at=NOW, disabled_reason=ENVIRONMENT_DELETED)
        .execution_options(synchronize_session=False)
    )
    event = select(col(EventRow.id)).where(
        col(EventRow.id) == col(DeliveryRow.event_id),
        col(EventRow.environment_id) == environment_id,
    )
    if since is not None:
        event = event.where(col(EventRow.created_at) < since)
    await _cancel_deliveries(tx, event.exists())


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


async def end_secrets(tx: Tx, endpoint_id: UUID, overlap_s: int) -> tuple[int, datetime | None]:
    """Let the live secrets end after an overlap, or as early as they would anyway.

    Answers how many stay live until then, and when the last of them ends.
    """
    over = NOW + timedelta(seconds=overlap_s)
    await tx.execute(
        update(WebhookSecretRow)
        .where(col(WebhookSecretRow.endpoint_id) == endpoint_id, _LIVE_SECRET)
        .values(expires_at=func.least(col(WebhookSecretRow.expires_at), over))  # NULL is ignored
        .execution_options(synchronize_session=False)
    )
    query = select(func.count(), func.max(col(WebhookSecretRow.expires_at))).where(
        col(WebhookSecretRow.endpoint_id) == endpoint_id, _LIVE_SECRET
    )
    live, expires_at = (await tx.execute(query)).one()
    return live, expires_at


async def newest_secret(tx: Tx, endpoint_id: UUID) -> WebhookSecretRow | None:
    """The secret an endpoint's owner should verify with."""
    query = select(WebhookSecretRow).where(
        col(WebhookSecretRow.endpoint_id) == endpoint_id, _LIVE_SECRET
    )
    newest = (
        col(WebhookSecretRow.expires_at).desc().nulls_first(),
        col(WebhookSecretRow.id).desc(),
    )
    return await tx.scalar(query.order_by(*newest).limit(1))


async def _cancel_deliveries(tx: Tx, which: ColumnElement[bool]) -> None:
    pending = _locked(
        select(col(DeliveryRow.id)).where(which, col(DeliveryRow.status) == "pending"),
        col(DeliveryRow.id),
    )
    await tx.execute(
        update(DeliveryRow)
        .where(col(DeliveryRow.id).in_(pending))
        .values(status="canceled", finished_at=NOW)
        .execution_options(synchronize_session=False)
    )


def _locked(ids: Select[UUID], key: Any) -> Select[UUID]:
    """Lock rows in the order of their ids, as every statement does, before they are changed."""
    return select(ids.order_by(key).with_for_update().cte("locked").c.id)


def _live(workspace_id: WorkspaceId) -> Select[EndpointRow]:
    return select(EndpointRow).where(
        col(EndpointRow.workspace_id) == workspace_id, col(EndpointRow.deleted_at).is_(None)
    )
