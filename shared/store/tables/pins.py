"""Which version each environment runs of a prompt, and who moved that."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Text, func
from sqlmodel import Field

from shared.store.tables.base import Table, UtcDateTime, to


class PinRow(Table, table=True):
    """The version that an environment runs of a prompt; always a published one."""

    __tablename__ = "environment_pins"
    __table_args__ = (
        to("environments", "workspace_id", "environment_id"),
        to(
            "prompt_versions",
            "workspace_id",
            "prompt_id",
            "version_id",
            references=("workspace_id", "prompt_id", "id"),
        ),
        Index("ix_environment_pins_prompt_id", "prompt_id"),
    )

    environment_id: UUID = Field(primary_key=True)
    prompt_id: UUID = Field(primary_key=True)
    workspace_id: UUID
    version_id: UUID
    comment: str = Field(default="", sa_type=Text)
    key_id: UUID | None = None
    pinned_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )


class PinChangeRow(Table, table=True):
    """Who moved a pin, when, from which version to which. A NULL target is a removal.

    `source_environment_id` is where a promotion took the version from.
    """

    __tablename__ = "environment_pin_history"
    __table_args__ = (
        to("environments", "workspace_id", "environment_id"),
        to("prompts", "workspace_id", "prompt_id"),
        CheckConstraint("from_number IS NOT NULL OR to_number IS NOT NULL", name="moves"),
        Index(
            "ix_environment_pin_history_environment_id_prompt_id_id",
            "environment_id",
            "prompt_id",
            "id",
        ),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID
    environment_id: UUID
    prompt_id: UUID
    from_number: int | None = None
    to_number: int | None = None
    comment: str = Field(default="", sa_type=Text)
    key_id: UUID | None = None
    source_environment_id: UUID | None = None
    changed_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
