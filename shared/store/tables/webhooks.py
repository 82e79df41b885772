"""Events, the endpoints that want them, and every delivery with its tries."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlmodel import Field

from shared.domain.states import WebhookFormat
from shared.store.tables.base import (
    Table,
    TextArray,
    UtcDateTime,
    UuidArray,
    Xid8,
    one_of,
    to,
)


class EventRow(Table, table=True):
    """Something that happened; its body is built once and sent byte for byte.

    `tx` orders the feed: a smaller id can commit later than a larger one.
    """

    __tablename__ = "events"
    __table_args__ = (
        to("environments", "workspace_id", "environment_id"),
        to("runs", "workspace_id", "run_id"),
        UniqueConstraint("workspace_id", "id"),
        UniqueConstraint("run_id"),
        Index("ix_events_feed", "workspace_id", "tx", "id"),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID
    environment_id: UUID | None = None
    run_id: UUID | None = None
    type: str = Field(sa_type=Text)
    body: str = Field(sa_type=Text)
    tx: int = Field(
        default=None,
        sa_type=Xid8,
        sa_column_kwargs={"server_default": text("pg_current_xact_id()")},
    )
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )


class EndpointRow(Table, table=True):
    """A webhook URL. Empty `environment_ids` or `events` mean all."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        UniqueConstraint("workspace_id", "id"),
        one_of("format", WebhookFormat),
        CheckConstraint("length(url) <= 2048", name="url_length"),
        Index(
            "ix_webhook_endpoints_live",
            "workspace_id",
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID = Field(sa_column_args=(ForeignKey("workspaces.id"),))
    url: str = Field(sa_type=Text)
    format: str = Field(sa_type=Text)
    description: str = Field(default="", sa_type=Text)
    include_output: bool = True
    environment_ids: list[UUID] = Field(
        default_factory=list, sa_type=UuidArray, sa_column_kwargs={"server_default": "{}"}
    )
    events: list[str] = Field(
        default_factory=list, sa_type=TextArray, sa_column_kwargs={"server_default": "{}"}
    )
    headers: bytes | None = Field(default=None, sa_type=LargeBinary)
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    disabled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    disabled_reason: str | None = Field(default=None, sa_type=Text)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class WebhookSecretRow(Table, table=True):
    """A sealed signing secret; several live side by side during a rotation."""

    __tablename__ = "webhook_secrets"
    __table_args__ = (
        to("webhook_endpoints", "workspace_id", "endpoint_id"),
        Index("ix_webhook_secrets_endpoint_id", "endpoint_id"),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID
    endpoint_id: UUID
    sealed: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class FailingEndpointRow(Table, table=True):
    """An endpoint whose last answer was a failure; its next success deletes the row.

    `spaced_failures` counts failures that lie far apart. While `paused_until` is set nothing is
    sent but, when that moment has passed, one probe at a time.
    """

    __tablename__ = "failing_endpoints"
    __table_args__ = (
        to("webhook_endpoints", "workspace_id", "endpoint_id"),
        CheckConstraint("(paused_until IS NULL) = (pause_s IS NULL)", name="paused_for_a_time"),
        {"postgresql_with": {"fillfactor": "50"}},
    )

    endpoint_id: UUID = Field(primary_key=True)
    workspace_id: UUID
    failing_since: datetime = Field(sa_type=UtcDateTime)
    failures: int
    spaced_failures: int
    spaced_at: datetime = Field(sa_type=UtcDateTime)
    pause_s: float | None = None
    paused_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    probe_until: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DeliveryRow(Table, table=True):
    """One endpoint's copy of an event. Pending ones are found by `next_try_at`."""

    __tablename__ = "deliveries"
    __table_args__ = (
        to("events", "workspace_id", "event_id"),
        to("webhook_endpoints", "workspace_id", "endpoint_id"),
        UniqueConstraint("event_id", "endpoint_id"),
        one_of("status", ("pending", "succeeded", "exhausted", "canceled")),
        CheckConstraint("(status = 'pending') = (finished_at IS NULL)", name="finished_iff_over"),
        Index(
            "ix_deliveries_endpoint_due",
            "endpoint_id",
            "next_try_at",
            postgresql_where=text("status = 'pending'"),
        ),
        Index("ix_deliveries_endpoint_id", "endpoint_id", "id"),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID
    event_id: UUID
    endpoint_id: UUID
    status: str = Field(sa_type=Text)
    tries: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    lease_no: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    next_try_at: datetime = Field(sa_type=UtcDateTime)
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DeliveryTryRow(Table, table=True):
    """One request to an endpoint and what came of it."""

    __tablename__ = "delivery_tries"
    __table_args__ = (ForeignKeyConstraint(("delivery_id",), ["deliveries.id"]),)

    delivery_id: UUID = Field(primary_key=True)
    number: int = Field(primary_key=True)
    started_at: datetime = Field(sa_type=UtcDateTime)
    duration_ms: int
    status_code: int | None = None
    outcome: str = Field(sa_type=Text)
    excerpt: str = Field(default="", sa_type=Text)
    address: str | None = Field(default=None, sa_type=Text)
