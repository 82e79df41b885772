"""What is remembered against an endpoint that fails."""

from uuid import UUID

from sqlalchemy import delete
from sqlmodel import col

from shared.store.database import Tx
from shared.store.tables import FailingEndpointRow


async def forget(tx: Tx, endpoint_id: UUID) -> None:
    """End its pause and count its failures anew."""
    await tx.execute(
        delete(FailingEndpointRow)
        .where(col(FailingEndpointRow.endpoint_id) == endpoint_id)
        .execution_options(synchronize_session=False)
    )
