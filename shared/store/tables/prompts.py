"""Prompts, their old names, their numbered versions, and the tags that point at versions."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlmodel import Field

from shared.store.tables.base import Table, UtcDateTime, to


class PromptRow(Table, table=True):
    """A slug with versions. Deleting hides it; its runs keep pointing here."""

    __tablename__ = "prompts"
    __table_args__ = (
        UniqueConstraint("workspace_id", "id"),
        CheckConstraint("slug ~ '^[a-z0-9][a-z0-9_-]{0,127}$'", name="slug_spelled"),
        Index(
            "uq_prompts_slug",
            "workspace_id",
            "slug",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID = Field(sa_column_args=(ForeignKey("workspaces.id"),))
    slug: str = Field(sa_type=Text)
    name: str = Field(sa_type=Text)
    description: str = Field(default="", sa_type=Text)
    last_number: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class PromptAliasRow(Table, table=True):
    """A slug that a prompt once had and still answers to."""

    __tablename__ = "prompt_aliases"
    __table_args__ = (to("prompts", "workspace_id", "prompt_id"),)

    workspace_id: UUID = Field(primary_key=True)
    slug: str = Field(primary_key=True, sa_type=Text)
    prompt_id: UUID


class PromptVersionRow(Table, table=True):
    """A draft, or once `published_at` is set, an immutable version."""

    __tablename__ = "prompt_versions"
    __table_args__ = (
        to("prompts", "workspace_id", "prompt_id"),
        UniqueConstraint("prompt_id", "number"),
        UniqueConstraint("workspace_id", "prompt_id", "id"),
        CheckConstraint("number > 0", name="numbered_from_one"),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID
    prompt_id: UUID
    number: int
    body: str = Field(sa_type=JSON)
    warnings: str = Field(default="[]", sa_type=JSON, sa_column_kwargs={"server_default": "[]"})
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    published_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class PromptTagRow(Table, table=True):
    """A name that points at one version of its own prompt."""

    __tablename__ = "prompt_tags"
    __table_args__ = (
        to(
            "prompt_versions",
            "workspace_id",
            "prompt_id",
            "version_id",
            references=("workspace_id", "prompt_id", "id"),
        ),
        CheckConstraint("tag ~ '^[a-z][a-z0-9_-]{0,63}$'", name="tag_spelled"),
    )

    prompt_id: UUID = Field(primary_key=True)
    tag: str = Field(primary_key=True, sa_type=Text)
    workspace_id: UUID
    version_id: UUID
    updated_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )


class TagChangeRow(Table, table=True):
    """Who moved a tag, when, from which version to which. A NULL target is a removal."""

    __tablename__ = "prompt_tag_history"
    __table_args__ = (
        to("prompts", "workspace_id", "prompt_id"),
        Index("ix_prompt_tag_history_prompt_id_tag_id", "prompt_id", "tag", "id"),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID
    prompt_id: UUID
    tag: str = Field(sa_type=Text)
    from_number: int | None = None
    to_number: int | None = None
    comment: str = Field(default="", sa_type=Text)
    key_id: UUID | None = None
    changed_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
