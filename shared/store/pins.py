"""Pins of environments: which version each runs of a prompt, and their moves."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Select, delete, select, text
from sqlmodel import col

from shared.domain.paging import Page, Slice
from shared.ids import new_id
from shared.store import paging
from shared.store.database import Tx
from shared.store.tables import (
    EnvironmentRow,
    PinChangeRow,
    PinRow,
    PromptRow,
    PromptVersionRow,
)


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A pin's way from one version to another, by number; `None` is no version."""

    workspace_id: UUID
    environment_id: UUID
    prompt_id: UUID
    key_id: UUID
    version_id: UUID | None
    from_number: int | None
    to_number: int | None
    comment: str
    source_environment_id: UUID | None = None
    id: UUID = msgspec.field(default_factory=new_id)


class Pinned(NamedTuple):
    """A pin with what it names."""

    pin: PinRow
    environment: str
    slug: str
    title: str
    number: int


# Moves are ordered by this moment; a transaction's start may lie before a wait for a lock.
_PUT = """
INSERT INTO environment_pins
  (environment_id, prompt_id, workspace_id, version_id, comment, key_id, pinned_at)
SELECT environment_id, prompt_id, workspace_id, version_id, comment, key_id, clock_timestamp()
FROM json_populate_recordset(NULL::environment_pins, CAST(:moves AS json))
ORDER BY environment_id, prompt_id
ON CONFLICT (environment_id, prompt_id) DO UPDATE SET version_id = excluded.version_id,
  comment = excluded.comment, key_id = excluded.key_id, pinned_at = excluded.pinned_at
"""
_RECORD = """
INSERT INTO environment_pin_history (id, workspace_id, environment_id, prompt_id, from_number,
  to_number, comment, key_id, source_environment_id, changed_at)
SELECT id, workspace_id, environment_id, prompt_id, from_number,
  to_number, comment, key_id, source_environment_id, clock_timestamp()
FROM json_populate_recordset(NULL::environment_pin_history, CAST(:moves AS json))
"""


async def of_environment(
    tx: Tx, environment_id: UUID, prompt_ids: Collection[UUID] | None = None
) -> Sequence[Pinned]:
    """The pins of an environment by slug, or those of some prompts; deleted prompts have none."""
    query = _pinned().where(col(PinRow.environment_id) == environment_id)
    if prompt_ids is not None:
        query = query.where(col(PinRow.prompt_id).in_(prompt_ids))
    return [Pinned(*row) for row in await tx.execute(query.order_by(col(PromptRow.slug)))]


async def of_prompts(
    tx: Tx, prompt_ids: Iterable[UUID], *, within: Collection[UUID] = ()
) -> Sequence[Pinned]:
    """Where prompts are pinned, oldest environment first; `within` leaves only these."""
    query = _pinned().where(col(PinRow.prompt_id).in_(set(prompt_ids)))
    if within:
        query = query.where(col(PinRow.environment_id).in_(within))
    rows = await tx.execute(query.order_by(col(PinRow.prompt_id), col(EnvironmentRow.id)))
    return [Pinned(*row) for row in rows]


async def put(tx: Tx, moves: Sequence[Move]) -> None:
    """Set or move pins, and write down who did."""
    if moves:
        await tx.execute(text(_PUT), {"moves": msgspec.json.encode(moves).decode()})
        await _record(tx, moves)


async def remove(tx: Tx, move: Move) -> None:
    """Take a pin away, and write down who did."""
    await tx.execute(
        delete(PinRow).where(
            col(PinRow.environment_id) == move.environment_id,
            col(PinRow.prompt_id) == move.prompt_id,
        )
    )
    await _record(tx, [move])


async def history(tx: Tx, environment_id: UUID, prompt_id: UUID, page: Page) -> Slice[PinChangeRow]:
    """Every move of a pin."""
    query = select(PinChangeRow).where(
        col(PinChangeRow.environment_id) == environment_id,
        col(PinChangeRow.prompt_id) == prompt_id,
    )
    return await paging.fetch(tx, query, col(PinChangeRow.id), page)


async def of_version(tx: Tx, version_id: UUID) -> Sequence[str]:
    """Names of the environments that pin a version."""
    query = (
        select(col(EnvironmentRow.name))
        .join(PinRow, col(PinRow.environment_id) == col(EnvironmentRow.id))
        .where(col(PinRow.version_id) == version_id)
    )
    return (await tx.scalars(query.order_by(col(EnvironmentRow.name)))).all()


async def _record(tx: Tx, moves: Sequence[Move]) -> None:
    await tx.execute(text(_RECORD), {"moves": msgspec.json.encode(moves).decode()})


def _pinned() -> Select[PinRow, str, str, str, int]:
    return (
        select(
            PinRow,
            col(EnvironmentRow.name),
            col(PromptRow.slug),
            col(PromptRow.name),
            col(PromptVersionRow.number),
        )
        .join(EnvironmentRow, col(EnvironmentRow.id) == col(PinRow.environment_id))
        .join(PromptRow, col(PromptRow.id) == col(PinRow.prompt_id))
        .join(PromptVersionRow, col(PromptVersionRow.id) == col(PinRow.version_id))
        .where(col(PromptRow.deleted_at).is_(None), col(EnvironmentRow.deleted_at).is_(None))
        .execution_options(populate_existing=True)  # pins are written past the session
    )
