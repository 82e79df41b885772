"""What is shown of prompts, their versions and their tags."""

from collections.abc import Mapping
from uuid import UUID

import msgspec

from shared.clock import rfc3339
from shared.domain import versions
from shared.domain.completions import ModelParams
from shared.domain.formats import ResponseFormat
from shared.domain.states import Memory
from shared.domain.tools import EmitTool
from shared.domain.version_diff import Change
from shared.domain.versions import MessageBody, VersionBody
from shared.services import views
from shared.store.tables import PromptRow, PromptTagRow, PromptVersionRow, TagChangeRow


class PromptView(msgspec.Struct, frozen=True, rename="camel"):
    """A prompt as its owner sees it."""

    id: str
    slug: str
    name: str
    description: str
    created_at: str


class VersionView(msgspec.Struct, frozen=True, rename="camel"):
    """A version without its body. `warnings` name what looks like a token and is literal text."""

    id: str
    number: int
    published: bool
    warnings: list[str]
    created_at: str
    published_at: str | None


class WholeVersionView(VersionView, frozen=True, rename="camel"):
    """A version with its body in the long form; posted again, `body` makes an equal version."""

    body: VersionBody


class TagView(msgspec.Struct, frozen=True, rename="camel"):
    """A tag and the number and id of the version it points at."""

    tag: str
    version: int
    version_id: str
    updated_at: str


class TagChangeView(msgspec.Struct, frozen=True, rename="camel"):
    """One move of a tag. `from` is null for its first, `to` for its removal."""

    id: str
    tag: str
    from_: int | None = msgspec.field(name="from")
    to: int | None
    comment: str
    key_id: str | None
    key_name: str | None
    changed_at: str


class VersionDiffView(msgspec.Struct, frozen=True):
    """What differs between two versions; nothing means that they say the same."""

    from_: VersionView = msgspec.field(name="from")
    to: VersionView
    changes: list[Change]


class RevisionView(msgspec.Struct, frozen=True, rename="camel"):
    """The PromptRevision of the prompts door (API.md §2), and what we add to it."""

    id: str
    prompt_id: str
    memory: Memory
    provider: str
    model: str
    model_params: ModelParams
    response_format: ResponseFormat
    system_instruction: str | None
    messages: list[MessageBody]
    tools: list[EmitTool]
    number: int
    slug: str
    tags: list[str]
    inputs: list[str]


def of_prompt(row: PromptRow) -> PromptView:
    """Show a prompt."""
    return PromptView(
        id=str(row.id),
        slug=row.slug,
        name=row.name,
        description=row.description,
        created_at=rfc3339(row.created_at),
    )


def of_version(row: PromptVersionRow) -> VersionView:
    """Show a version without its body."""
    return VersionView(
        id=str(row.id),
        number=row.number,
        published=row.published_at is not None,
        warnings=list(row.warnings),
        created_at=rfc3339(row.created_at),
        published_at=views.moment(row.published_at),
    )


def of_whole_version(row: PromptVersionRow) -> WholeVersionView:
    """Show a version with its body."""
    stored = msgspec.convert(row.body, VersionBody)
    return WholeVersionView(
        **msgspec.structs.asdict(of_version(row)), body=versions.as_written(stored)
    )


def of_tag(row: PromptTagRow, number: int) -> TagView:
    """Show a tag that points at the version of this number."""
    return TagView(
        tag=row.tag,
        version=number,
        version_id=str(row.version_id),
        updated_at=rfc3339(row.updated_at),
    )


def of_tag_change(row: TagChangeRow, key_names: Mapping[UUID, str]) -> TagChangeView:
    """Show a move of a tag."""
    return TagChangeView(
        id=str(row.id),
        tag=row.tag,
        from_=row.from_number,
        to=row.to_number,
        comment=row.comment,
        key_id=None if row.key_id is None else str(row.key_id),
        key_name=None if row.key_id is None else key_names.get(row.key_id),
        changed_at=rfc3339(row.changed_at),
    )
