"""Aliases of models."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import func, select
from sqlmodel import col

from shared.domain.aliases import Alias, Aliases
from shared.ids import WorkspaceId
from shared.store.database import Store, Tx
from shared.store.tables import AliasRow
from shared.store.tables.base import NOW

_NAMES = "SELECT alias FROM model_aliases WHERE workspace_id = %(workspace)s"

AS_JSON = """(SELECT json_object_agg(m.alias, json_build_object('models', m.models,
    'strategy', m.strategy, 'weights', m.weights))::text
  FROM model_aliases m WHERE m.workspace_id = w.id)"""
"""All that a submission needs to know of the aliases of the workspace `w`; null: none."""

_aliases = msgspec.json.Decoder(dict[str, Alias])


def read(found: str | None) -> Aliases:
    """Read what `AS_JSON` wrote."""
    return {} if found is None else _aliases.decode(found)


async def names(store: Store, workspace_id: WorkspaceId) -> frozenset[str]:
    """The aliases of a workspace."""
    rows = await store.fetch(_NAMES, {"workspace": workspace_id})
    return frozenset(row[0] for row in rows)


async def listed(tx: Tx, workspace_id: WorkspaceId) -> Sequence[AliasRow]:
    """The aliases of a workspace by name."""
    query = select(AliasRow).where(col(AliasRow.workspace_id) == workspace_id)
    return (await tx.scalars(query.order_by(col(AliasRow.alias).collate("C")))).all()


async def find(tx: Tx, workspace_id: WorkspaceId, name: str) -> AliasRow | None:
    """An alias by its name."""
    return await tx.get(AliasRow, (workspace_id, name))


async def count(tx: Tx, workspace_id: WorkspaceId) -> int:
    """How many aliases a workspace has."""
    query = select(func.count()).where(col(AliasRow.workspace_id) == workspace_id)
    return (await tx.scalar(query)) or 0


async def put(
    tx: Tx, workspace_id: WorkspaceId, name: str, row: AliasRow | None, alias: Alias
) -> AliasRow:
    """Set an alias; `row` is what it was."""
    if row is None:
        row = AliasRow(workspace_id=workspace_id, alias=name, models=[], strategy="")
        tx.add(row)
    row.models, row.strategy = list(alias.models), alias.strategy.value
    row.weights = None if alias.weights is None else list(alias.weights)
    row.description = alias.description
    row.updated_at = NOW
    await tx.flush()
    await tx.refresh(row)
    return row


async def remove(tx: Tx, row: AliasRow) -> None:
    """Take an alias away."""
    await tx.delete(row)
    await tx.flush()
