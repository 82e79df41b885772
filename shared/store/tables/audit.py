"""The audit: who did what, written with what was done."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from shared.store.tables.base import Table, UtcDateTime, UuidArray, one_of

ACTORS = ("key", "operator")


class AuditRow(Table, table=True):
    """One thing that was done, written in the transaction that did it and never changed.

    `key_name` is the key's name as it was. Empty `environment_ids`: it concerns all of them, or
    none. No workspace: the operator did it to all.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        one_of("actor", ACTORS),
        CheckConstraint("(actor = 'key') = (key_id IS NOT NULL)", name="key_iff_by_key"),
        CheckConstraint("actor = 'operator' OR workspace_id IS NOT NULL", name="of_a_workspace"),
        Index("ix_audit_log_workspace_id_id", "workspace_id", "id"),
        Index("ix_audit_log_action", "workspace_id", "action", "id"),
        Index("ix_audit_log_key_id", "workspace_id", "key_id", "id"),
        Index("ix_audit_log_target_id", "workspace_id", "target_id", "id"),
        Index("ix_audit_log_target_name", "workspace_id", "target_name", "id"),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID | None = Field(default=None, sa_column_args=(ForeignKey("workspaces.id"),))
    at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    actor: str = Field(sa_type=Text)
    key_id: UUID | None = None
    key_name: str | None = Field(default=None, sa_type=Text)
    action: str = Field(sa_type=Text)
    target_kind: str = Field(sa_type=Text)
    target_id: UUID | None = None
    target_name: str = Field(sa_type=Text)
    environment_ids: list[UUID] = Field(
        default_factory=list, sa_type=UuidArray, sa_column_kwargs={"server_default": "{}"}
    )
    request_id: str | None = Field(default=None, sa_type=Text)
    details: dict[str, Any] = Field(
        default_factory=dict, sa_type=JSONB, sa_column_kwargs={"server_default": "{}"}
    )
