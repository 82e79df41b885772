"""Budgets: what environments and keys may spend in a day or a month, and what is left of it."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import msgspec
from sqlalchemy import or_, select
from sqlmodel import col

from shared.domain.credits import Period
from shared.domain.paging import Page, Slice
from shared.ids import WorkspaceId, new_id
from shared.store import database, paging, workspaces
from shared.store.database import Store, Tx
from shared.store.tables import ApiKeyRow, BudgetRow, EnvironmentRow


def period_start(budget: str) -> str:
    """When the period of a budget began that it is now."""
    return f"date_trunc({budget}.period, now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"


SPENT = f"CASE WHEN b.period_from >= {period_start('b')} THEN b.spent_nanousd ELSE 0 END"
"""What was spent of a budget `b` in the period that it is now."""

_HAS_ROOM = f"""
SELECT NOT EXISTS (SELECT 1 FROM accounts a WHERE a.workspace_id = %(workspace)s AND a.metered
    AND a.balance_nanousd <= 0)
  AND NOT EXISTS (SELECT 1 FROM budgets b WHERE b.workspace_id = %(workspace)s
    AND (b.environment_id = %(environment)s OR b.key_id = %(key)s)
    AND b.limit_nanousd <= {SPENT})
"""


async def has_room(
    store: Store, workspace_id: WorkspaceId, environment_id: UUID, key_id: UUID
) -> bool:
    """Whether anything at all is left to spend, what is held included."""
    place = {"workspace": workspace_id, "environment": environment_id, "key": key_id}
    rows = await store.fetch(_HAS_ROOM, place)
    return bool(rows[0][0])


class Spender(msgspec.Struct, frozen=True):
    """Whose budget it is: an environment's, or a key's."""

    column: str
    id: UUID


async def put(
    tx: Tx, workspace_id: WorkspaceId, of: Spender, period: Period, limit_nanousd: int
) -> None:
    """Set a budget; one that is there goes on with what it has spent."""
    await _execute(
        tx,
        f"""INSERT INTO budgets AS b
          (id, workspace_id, {of.column}, period, limit_nanousd, period_from)
        VALUES (%(id)s, %(workspace)s, %(of)s, %(period)s, %(limit)s,
          date_trunc(%(period)s, now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')
        ON CONFLICT (workspace_id, {of.column}, period) WHERE {of.column} IS NOT NULL
          DO UPDATE SET limit_nanousd = excluded.limit_nanousd""",
        {
            "id": new_id(),
            "workspace": workspace_id,
            "of": of.id,
            "period": period.value,
            "limit": limit_nanousd,
        },
    )


async def remove(tx: Tx, workspace_id: WorkspaceId, of: Spender, period: Period) -> bool:
    """Take a budget away; `False` where there was none."""
    rows = await database.fetch(
        tx,
        f"""DELETE FROM budgets WHERE workspace_id = %(workspace)s AND {of.column} = %(of)s
        AND period = %(period)s RETURNING id""",
        {"workspace": workspace_id, "of": of.id, "period": period.value},
    )
    return bool(rows)


async def listed(
    tx: Tx, workspace_id: WorkspaceId, page: Page, *, within: Collection[UUID] = ()
) -> Slice[BudgetRow]:
    """The budgets of live environments and keys; `within` leaves those of these environments."""
    environments = select(col(EnvironmentRow.id)).where(
        col(EnvironmentRow.workspace_id) == workspace_id, col(EnvironmentRow.deleted_at).is_(None)
    )
    keys = select(col(ApiKeyRow.id)).where(
        col(ApiKeyRow.workspace_id) == workspace_id, col(ApiKeyRow.revoked_at).is_(None)
    )
    if within:
        environments = environments.where(col(EnvironmentRow.id).in_(within))
        keys = keys.where(workspaces.limited_to(col(ApiKeyRow.environment_ids), within))
    query = select(BudgetRow).where(
        col(BudgetRow.workspace_id) == workspace_id,
        or_(col(BudgetRow.environment_id).in_(environments), col(BudgetRow.key_id).in_(keys)),
    )
    return await paging.fetch(tx, query, col(BudgetRow.id), page)


async def of_spender(tx: Tx, workspace_id: WorkspaceId, of: Spender) -> Sequence[BudgetRow]:
    """The budgets of one environment or key."""
    owner = BudgetRow.environment_id if of.column == "environment_id" else BudgetRow.key_id
    query = select(BudgetRow).where(
        col(BudgetRow.workspace_id) == workspace_id, col(owner) == of.id
    )
    return (await tx.scalars(query)).all()


async def _execute(tx: Tx, statement: str, parameters: Mapping[str, object]) -> None:
    connection = await tx.connection()
    await connection.exec_driver_sql(statement, dict(parameters))
