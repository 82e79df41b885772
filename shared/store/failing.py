"""What is remembered against an endpoint that fails."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlmodel import col

from shared.store.database import Tx
from shared.store.tables import FailingEndpointRow
from shared.store.tables.base import NOW


async def forget(tx: Tx, endpoint_id: UUID) -> None:
    """End its pause and count its failures anew."""
    await tx.execute(
        delete(FailingEndpointRow)
        .where(col(FailingEndpointRow.endpoint_id) == endpoint_id)
        .execution_options(synchronize_session=False)
    )


async def pauses(tx: Tx, endpoint_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """Until when endpoints get nothing, of those that are paused."""
    ends = col(FailingEndpointRow.paused_until)
    endpoint_id = col(FailingEndpointRow.endpoint_id)
    rows = await tx.execute(
        select(endpoint_id, ends).where(endpoint_id.in_(endpoint_ids), ends > NOW)
    )
    return {row[0]: until for row in rows if (until := row[1]) is not None}
