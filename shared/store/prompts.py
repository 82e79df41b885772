"""Prompts, versions and tags."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg.errors import ForeignKeyViolation
from sqlalchemy import Select, Text, cast, delete, func, literal, or_, select
from sqlalchemy.dialects.postgresql import JSON
from sqlmodel import col

from shared.domain.paging import Page, Slice
from shared.errors import ConflictError
from shared.ids import VersionId, WorkspaceId, new_id, parse
from shared.store import conflicts, paging
from shared.store.database import Store, Tx
from shared.store.tables import (
    PromptAliasRow,
    PromptRow,
    PromptTagRow,
    PromptVersionRow,
    TagChangeRow,
)
from shared.store.tables.base import NOW

# Publications and moves of tags are ordered by this moment; a transaction's start may lie before a
# wait for a lock.
_THIS_MOMENT: Any = func.clock_timestamp()

MAX_MOVES = 10_000

_TAGS_OF_VERSION = "SELECT tag FROM prompt_tags WHERE version_id = %(version)s ORDER BY tag"


async def find(tx: Tx, workspace_id: WorkspaceId, slug: str) -> PromptRow | None:
    """A live prompt by its slug, by one it once had, or by its id."""
    row = await tx.scalar(_live(workspace_id).where(col(PromptRow.slug) == slug))
    if row is not None:
        return row
    alias = await tx.get(PromptAliasRow, (workspace_id, slug))
    prompt_id = parse(slug) if alias is None else alias.prompt_id
    if prompt_id is None:
        return None
    return await tx.scalar(_live(workspace_id).where(col(PromptRow.id) == prompt_id))


async def taken_slugs(tx: Tx, workspace_id: WorkspaceId, beginning: str) -> set[str]:
    """Every slug with this beginning that leads to a prompt, aliases included."""
    current = select(col(PromptRow.slug)).where(
        col(PromptRow.workspace_id) == workspace_id,
        func.starts_with(col(PromptRow.slug), beginning),
        col(PromptRow.deleted_at).is_(None),
    )
    former = select(col(PromptAliasRow.slug)).where(
        col(PromptAliasRow.workspace_id) == workspace_id,
        func.starts_with(col(PromptAliasRow.slug), beginning),
    )
    return set((await tx.scalars(current.union_all(former))).all())


async def insert(
    tx: Tx, workspace_id: WorkspaceId, slug: str, name: str, description: str
) -> PromptRow:
    """Add a prompt. Raises `ConflictError` where another has the slug."""
    row = PromptRow(
        id=new_id(), workspace_id=workspace_id, slug=slug, name=name, description=description
    )
    tx.add(row)
    with conflicts.told_as(slug_taken(slug)):
        await tx.flush()
    await tx.refresh(row)
    return row


async def rename(tx: Tx, row: PromptRow, slug: str) -> None:
    """Give a prompt another slug; the old one stays an alias. Raises `ConflictError` if taken."""
    await tx.execute(
        delete(PromptAliasRow).where(
            col(PromptAliasRow.workspace_id) == row.workspace_id, col(PromptAliasRow.slug) == slug
        )
    )
    await tx.merge(PromptAliasRow(workspace_id=row.workspace_id, slug=row.slug, prompt_id=row.id))
    row.slug = slug
    with conflicts.told_as(slug_taken(slug)):
        await tx.flush()


async def describe(tx: Tx, row: PromptRow, *, name: str | None, description: str | None) -> None:
    """Change what is said about a prompt; `None` leaves it."""
    row.name = row.name if name is None else name
    row.description = row.description if description is None else description
    await tx.flush()


async def remove(tx: Tx, row: PromptRow) -> None:
    """Hide a prompt and free its slugs; runs keep pointing at it."""
    await tx.execute(delete(PromptAliasRow).where(col(PromptAliasRow.prompt_id) == row.id))
    row.deleted_at = NOW
    await tx.flush()


async def listed(tx: Tx, workspace_id: WorkspaceId, page: Page) -> Slice[PromptRow]:
    """Live prompts of a workspace."""
    return await paging.fetch(tx, _live(workspace_id), col(PromptRow.id), page)


async def insert_version(
    tx: Tx, prompt: PromptRow, body: str, warnings: str, *, publish: bool
) -> PromptVersionRow:
    """Add the next version, published at once or as a draft; `body`, `warnings` are JSON texts."""
    prompt.last_number += 1
    row = PromptVersionRow(
        id=new_id(),
        workspace_id=prompt.workspace_id,
        prompt_id=prompt.id,
        number=prompt.last_number,
        body=_json(body),
        warnings=_json(warnings),
        published_at=_THIS_MOMENT if publish else None,
    )
    tx.add(row)
    await tx.flush()
    await tx.refresh(row)
    return row


async def find_version(tx: Tx, prompt_id: UUID, number: int) -> PromptVersionRow | None:
    """A version, draft or published, by its number."""
    return await tx.scalar(
        select(PromptVersionRow).where(
            col(PromptVersionRow.prompt_id) == prompt_id, col(PromptVersionRow.number) == number
        )
    )


async def get_version(tx: Tx, version_id: VersionId) -> PromptVersionRow | None:
    """A version by its id."""
    return await tx.get(PromptVersionRow, version_id)


async def publish(tx: Tx, row: PromptVersionRow) -> None:
    """Make a draft reachable and immutable."""
    row.published_at = _THIS_MOMENT
    await tx.flush()
    await tx.refresh(row)


async def replace_body(tx: Tx, row: PromptVersionRow, body: str, warnings: str) -> None:
    """Give a draft another body; `body` and `warnings` are JSON texts."""
    row.body, row.warnings = _json(body), _json(warnings)
    await tx.flush()
    await tx.refresh(row)


async def remove_version(tx: Tx, row: PromptVersionRow) -> None:
    """Delete a version for good. Raises `ConflictError` where a run was made of it.

    The foreign key looks through all runs of the workspace, half a second for a million: an index
    would cost every run of everybody more than that is worth.
    """
    await tx.delete(row)
    with conflicts.told_as(version_has_runs(), ForeignKeyViolation):
        await tx.flush()


async def versions(tx: Tx, prompt_id: UUID, page: Page) -> Slice[PromptVersionRow]:
    """All versions of a prompt, drafts included."""
    query = select(PromptVersionRow).where(col(PromptVersionRow.prompt_id) == prompt_id)
    return await paging.fetch(tx, query, col(PromptVersionRow.id), page)


async def find_tag(tx: Tx, prompt_id: UUID, tag: str) -> PromptTagRow | None:
    """Where a tag points."""
    return await tx.get(PromptTagRow, (prompt_id, tag))


async def set_tag(tx: Tx, prompt: PromptRow, tag: str, version: PromptVersionRow) -> PromptTagRow:
    """Point a tag at a version."""
    row = await find_tag(tx, prompt.id, tag)
    if row is None:
        row = PromptTagRow(
            prompt_id=prompt.id,
            tag=tag,
            workspace_id=prompt.workspace_id,
            version_id=version.id,
        )
        tx.add(row)
    row.version_id = version.id
    row.updated_at = NOW
    await tx.flush()
    await tx.refresh(row)
    return row


async def remove_tag(tx: Tx, row: PromptTagRow) -> None:
    """Take a tag away."""
    await tx.delete(row)
    await tx.flush()


async def record_tag_change(tx: Tx, change: dict[str, Any]) -> None:
    """Write down who moved a tag, from where to where."""
    tx.add(TagChangeRow(id=new_id(), changed_at=_THIS_MOMENT, **change))
    await tx.flush()


async def tags(tx: Tx, prompt_id: UUID) -> Sequence[tuple[PromptTagRow, int]]:
    """The tags of a prompt with the numbers of their versions."""
    rows = await tx.execute(
        select(PromptTagRow, col(PromptVersionRow.number))
        .join(PromptVersionRow, col(PromptVersionRow.id) == col(PromptTagRow.version_id))
        .where(col(PromptTagRow.prompt_id) == prompt_id)
        .order_by(col(PromptTagRow.tag))
    )
    return [(row, number) for row, number in rows]


async def count_tags(tx: Tx, prompt_id: UUID) -> int:
    """How many tags a prompt has."""
    query = select(func.count()).where(col(PromptTagRow.prompt_id) == prompt_id)
    return (await tx.scalar(query)) or 0


async def tags_at(tx: Tx, version_id: UUID) -> Sequence[str]:
    """Names of the tags that point at a version, inside a transaction."""
    query = select(col(PromptTagRow.tag)).where(col(PromptTagRow.version_id) == version_id)
    return (await tx.scalars(query.order_by(col(PromptTagRow.tag)))).all()


async def tags_of_version(store: Store, version_id: VersionId) -> list[str]:
    """Names of the tags that point at a version."""
    rows = await store.fetch(_TAGS_OF_VERSION, {"version": version_id})
    return [row[0] for row in rows]


async def tag_history(tx: Tx, prompt_id: UUID, tag: str, page: Page) -> Slice[TagChangeRow]:
    """Every move of a tag."""
    query = select(TagChangeRow).where(
        col(TagChangeRow.prompt_id) == prompt_id, col(TagChangeRow.tag) == tag
    )
    return await paging.fetch(tx, query, col(TagChangeRow.id), page)


async def tag_moves(tx: Tx, prompt_id: UUID, tag: str) -> Sequence[int | None]:
    """Numbers of the versions a tag was pointed at, oldest first; `None` is its removal.

    Without versions that are deleted. Of very many moves the oldest are left out.
    """
    is_there = (
        select(PromptVersionRow)
        .where(
            col(PromptVersionRow.prompt_id) == prompt_id,
            col(PromptVersionRow.number) == col(TagChangeRow.to_number),
        )
        .exists()
    )
    query = (
        select(col(TagChangeRow.to_number))
        .where(
            col(TagChangeRow.prompt_id) == prompt_id,
            col(TagChangeRow.tag) == tag,
            or_(col(TagChangeRow.to_number).is_(None), is_there),
        )
        # Ids are made by the clocks of several hosts, this by the database's, behind a lock.
        .order_by(col(TagChangeRow.changed_at).desc(), col(TagChangeRow.id).desc())
        .limit(MAX_MOVES)
    )
    return (await tx.scalars(query)).all()[::-1]


async def latest(tx: Tx, prompt_id: UUID) -> PromptVersionRow | None:
    """The version that was published last."""
    published_at = col(PromptVersionRow.published_at)
    query = select(PromptVersionRow).where(
        col(PromptVersionRow.prompt_id) == prompt_id, published_at.is_not(None)
    )
    newest = query.order_by(published_at.desc(), col(PromptVersionRow.number).desc())
    return await tx.scalar(newest.limit(1))


def slug_taken(slug: str) -> ConflictError:
    """The error for a slug that leads to another prompt."""
    return ConflictError(
        f"A prompt has the slug '{slug}', or once had it and still answers to it.",
        code="slug_taken",
    )


def version_has_runs() -> ConflictError:
    """The error for deleting a version that runs were made of."""
    return ConflictError(
        "Runs were made of this version: their history needs it.", code="version_in_use"
    )


def _json(text: str) -> Any:
    """A JSON text as the column keeps it, byte for byte: the ORM would write it as a string."""
    return cast(literal(text, Text), JSON)


def _live(workspace_id: WorkspaceId) -> Select[PromptRow]:
    return select(PromptRow).where(
        col(PromptRow.workspace_id) == workspace_id, col(PromptRow.deleted_at).is_(None)
    )
