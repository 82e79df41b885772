"""Workspaces, their keys, and their environments with encrypted variables."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlmodel import Field

from shared.store.tables.base import Table, TextArray, UtcDateTime, UuidArray, to


class WorkspaceRow(Table, table=True):
    """A tenant. `catalog_version` grows with every change that a submission could notice.

    `accounted` says that its money is watched: it is metered, or has a budget.
    """

    __tablename__ = "workspaces"
    __table_args__ = (
        CheckConstraint("name <> ''", name="named"),
        CheckConstraint("retain_contents_days BETWEEN 0 AND 3650", name="retained_contents_days"),
        CheckConstraint("retain_runs_days BETWEEN 1 AND 3650", name="retained_runs_days"),
    )

    id: UUID = Field(primary_key=True)
    name: str = Field(sa_type=Text)
    server_credentials: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    catalog_version: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    accounted: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    max_request_nanousd: int | None = Field(default=None, sa_type=BigInteger)
    retain_contents_days: int | None = None
    retain_runs_days: int | None = None
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )


class ApiKeyRow(Table, table=True):
    """A key's digest; its text exists only in the answer that created it."""

    __tablename__ = "api_keys"
    __table_args__ = (
        UniqueConstraint("lookup_id"),
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        Index("ix_api_keys_workspace_id", "workspace_id"),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID = Field(sa_column_args=(ForeignKey("workspaces.id"),))
    name: str = Field(sa_type=Text)
    lookup_id: str = Field(sa_type=Text)
    digest: bytes = Field(sa_type=LargeBinary)
    scopes: list[str] = Field(sa_type=TextArray)
    environment_ids: list[UUID] = Field(
        default_factory=list, sa_type=UuidArray, sa_column_kwargs={"server_default": "{}"}
    )
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class EnvironmentRow(Table, table=True):
    """`production`, `staging`, …: scopes variables and webhooks. One is the default.

    With `deleting_at` it takes no runs any more; those it had are being canceled. What it says
    nothing about, its workspace says, or the settings do.
    """

    __tablename__ = "environments"
    __table_args__ = (
        UniqueConstraint("workspace_id", "id"),
        CheckConstraint("NOT (is_default AND deleted_at IS NOT NULL)", name="default_is_alive"),
        CheckConstraint("NOT (is_default AND deleting_at IS NOT NULL)", name="default_stays"),
        CheckConstraint("retain_contents_days BETWEEN 0 AND 3650", name="retained_contents_days"),
        CheckConstraint("retain_runs_days BETWEEN 1 AND 3650", name="retained_runs_days"),
        CheckConstraint("max_queued_runs > 0", name="capped_queued_runs"),
        CheckConstraint("max_running_runs > 0", name="capped_running_runs"),
        Index(
            "uq_environments_name",
            "workspace_id",
            text("lower(name)"),
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "uq_environments_default",
            "workspace_id",
            unique=True,
            postgresql_where=text("is_default"),
        ),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID = Field(sa_column_args=(ForeignKey("workspaces.id"),))
    name: str = Field(sa_type=Text)
    is_default: bool = Field(default=False)
    variables_version: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    retain_contents_days: int | None = None
    retain_runs_days: int | None = None
    max_queued_runs: int | None = None
    max_running_runs: int | None = None
    deleting_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class EnvironmentVariableRow(Table, table=True):
    """A sealed value; `last4` is all that is ever shown of it."""

    __tablename__ = "environment_variables"
    __table_args__ = (to("environments", "workspace_id", "environment_id"),)

    environment_id: UUID = Field(primary_key=True)
    key: str = Field(primary_key=True, sa_type=Text)
    workspace_id: UUID
    sealed: bytes = Field(sa_type=LargeBinary)
    last4: str = Field(sa_type=Text)
    updated_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
