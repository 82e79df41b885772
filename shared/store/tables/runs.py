"""Runs and what belongs to them: attempts, threads, turns, messages, worker sessions, keys."""

from datetime import datetime
from typing import Any
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
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlmodel import Field

from shared.domain.states import (
    LIVE,
    TERMINAL,
    AttemptOutcome,
    Billed,
    ErrorOrigin,
    IncompleteReason,
    Lane,
    RunStatus,
    UnknownOutcome,
)
from shared.store.tables.base import Table, TextArray, UtcDateTime, UuidArray, one_of, to

_TERMINAL_LIST = ", ".join(f"'{status}'" for status in sorted(TERMINAL))
_LIVE_LIST = ", ".join(f"'{status}'" for status in sorted(LIVE))


class WorkerSessionRow(Table, table=True):
    """A worker process and its lease. Once reaped it is over for good."""

    __tablename__ = "worker_sessions"

    id: UUID = Field(primary_key=True)
    host: str = Field(sa_type=Text)
    pid: int
    started_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    lease_expires_at: datetime = Field(sa_type=UtcDateTime)
    reaped_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class ThreadRow(Table, table=True):
    """A conversation. Clients choose its id, so the key holds the workspace.

    The row outlives the thread's deletion: numbers of turns are never given out again, or a run
    of before would show what was said later. `environment_ids` are those that used it.
    """

    __tablename__ = "threads"

    workspace_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("workspaces.id"),))
    id: UUID = Field(primary_key=True)
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    environment_ids: list[UUID] = Field(
        default_factory=list, sa_type=UuidArray, sa_column_kwargs={"server_default": "{}"}
    )


class TurnRow(Table, table=True):
    """The last turn number given out in a channel of a thread."""

    __tablename__ = "turns"
    __table_args__ = (to("threads", "workspace_id", "thread_id"),)

    workspace_id: UUID = Field(primary_key=True)
    thread_id: UUID = Field(primary_key=True)
    channel: str = Field(primary_key=True, sa_type=Text)
    last_turn: int


class RunRow(Table, table=True):
    """A run. This row, not the queue message, decides what happens."""

    __tablename__ = "runs"
    __table_args__ = (
        to("environments", "workspace_id", "environment_id"),
        to(
            "prompt_versions",
            "workspace_id",
            "prompt_id",
            "version_id",
            references=("workspace_id", "prompt_id", "id"),
        ),
        UniqueConstraint("workspace_id", "id"),
        one_of("status", RunStatus),
        one_of("priority", Lane),
        one_of("on_unknown_outcome", UnknownOutcome),
        one_of("incomplete_reason", IncompleteReason),
        one_of("error_origin", ErrorOrigin),
        CheckConstraint(
            f"(status IN ({_TERMINAL_LIST})) = (finished_at IS NOT NULL)",
            name="finished_at_iff_terminal",
        ),
        CheckConstraint(
            "(status = 'running') = (session_id IS NOT NULL)", name="session_iff_running"
        ),
        CheckConstraint(
            "(status = 'incomplete') = (incomplete_reason IS NOT NULL)",
            name="reason_iff_incomplete",
        ),
        CheckConstraint(
            "(status IN ('failed')) <= (error_code IS NOT NULL)", name="failed_has_error"
        ),
        CheckConstraint("calls >= 0 AND calls <= max_attempts", name="calls_bounded"),
        CheckConstraint("max_attempts BETWEEN 1 AND 20", name="max_attempts_range"),
        CheckConstraint(
            "cancel_requested_at IS NULL OR status NOT IN ('queued', 'scheduled')",
            name="canceled_waits_no_more",
        ),
        CheckConstraint("env_vars IS NULL OR finished_at IS NULL", name="env_vars_erased"),
        Index(
            "ix_runs_due",
            "priority",
            "available_at",
            "id",
            postgresql_where=text("status IN ('queued', 'scheduled')"),
        ),
        Index(
            "ix_runs_expiring",
            "expires_at",
            postgresql_where=text("status IN ('queued', 'scheduled')"),
        ),
        Index(
            "ix_runs_overdue",
            text("least(ends_at, deadline)"),
            postgresql_where=text(
                "status IN ('queued', 'scheduled') AND least(ends_at, deadline) IS NOT NULL"
            ),
        ),
        Index("ix_runs_needs_turn", "available_at", postgresql_where=text("needs_turn")),
        Index(
            "ix_runs_scheduled_turn",
            "workspace_id",
            "thread_id",
            postgresql_where=text("needs_turn AND status = 'scheduled'"),
        ),
        Index(
            "ix_runs_budget_hold",
            "workspace_id",
            "available_at",
            postgresql_where=text("status = 'queued' AND status_reason = 'budget_hold'"),
        ),
        Index(
            "ix_runs_session",
            "session_id",
            postgresql_where=text("status = 'running'"),
        ),
        Index(
            "ix_runs_kept",
            "environment_id",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL AND contents_erased_at IS NULL"),
        ),
        Index(
            "ix_runs_erased",
            "environment_id",
            "finished_at",
            postgresql_where=text("contents_erased_at IS NOT NULL"),
        ),
        Index(
            "ix_runs_parked",
            "environment_id",
            text("priority DESC"),
            "id",
            postgresql_where=text("status = 'queued' AND status_reason = 'backlog'"),
        ),
        Index(
            "uq_runs_turn",
            "workspace_id",
            "thread_id",
            "channel",
            "turn",
            unique=True,
            postgresql_where=text(f"turn IS NOT NULL AND status IN ({_LIVE_LIST})"),
        ),
        {"postgresql_with": {"fillfactor": "70"}},
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID
    environment_id: UUID
    prompt_id: UUID
    version_id: UUID
    tag: str | None = Field(default=None, sa_type=Text)
    key_id: UUID | None = None
    replayed_from: UUID | None = None
    traceparent: str | None = Field(default=None, sa_type=Text)

    status: str = Field(sa_type=Text)
    status_reason: str | None = Field(default=None, sa_type=Text)
    priority: str = Field(sa_type=Text)
    available_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    deadline: datetime | None = Field(default=None, sa_type=UtcDateTime)
    max_duration_s: int
    ends_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    cancel_requested_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    claim_no: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    session_id: UUID | None = None
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    calls: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    deaths: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    max_attempts: int
    on_unknown_outcome: str = Field(sa_type=Text)

    thread_id: UUID
    channel: str = Field(sa_type=Text)
    turn: int | None = None
    needs_turn: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    history_read: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    history_from: int | None = None  # the first turn that was sent along

    inputs: str = Field(sa_type=JSON)
    env_vars: bytes | None = Field(default=None, sa_type=LargeBinary)
    metadata_: dict[str, Any] = Field(sa_type=JSONB, sa_column_kwargs={"name": "metadata"})
    tags: list[str] = Field(
        default_factory=list, sa_type=TextArray, sa_column_kwargs={"server_default": "{}"}
    )
    model: str = Field(sa_type=Text)
    models: list[str] | None = Field(default=None, sa_type=TextArray)  # what an alias stood for
    model_overridden: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    params: str | None = Field(default=None, sa_type=JSON)
    flow: str | None = Field(default=None, sa_type=JSON)  # what the flows door adds: `FlowPart`

    messages: str | None = Field(default=None, sa_type=JSON)
    messages_sha256: bytes | None = Field(default=None, sa_type=LargeBinary)
    output: str | None = Field(default=None, sa_type=Text)
    transcript: str | None = Field(default=None, sa_type=JSON)  # only where tools were called
    incomplete_reason: str | None = Field(default=None, sa_type=Text)
    error_code: str | None = Field(default=None, sa_type=Text)
    error_message: str | None = Field(default=None, sa_type=Text)
    error_origin: str | None = Field(default=None, sa_type=Text)
    last_error: str | None = Field(default=None, sa_type=Text)
    token_usage: str | None = Field(default=None, sa_type=JSON)
    cost: str | None = Field(default=None, sa_type=JSON)
    cost_nanousd: int | None = Field(default=None, sa_type=BigInteger)
    max_nanousd: int | None = Field(default=None, sa_type=BigInteger)  # what it may cost at most

    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    contents_erased_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class AttemptRow(Table, table=True):
    """One provider call, written before its first byte leaves. Open while `outcome` is NULL."""

    __tablename__ = "attempts"
    __table_args__ = (
        to("runs", "workspace_id", "run_id"),
        one_of("outcome", AttemptOutcome),
        one_of("billed", Billed),
        CheckConstraint("number > 0", name="numbered_from_one"),
        CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="closed_iff_outcome"),
        Index("ix_attempts_workspace_id_started_at", "workspace_id", "started_at"),
        {"postgresql_with": {"fillfactor": "70"}},
    )

    run_id: UUID = Field(primary_key=True)
    number: int = Field(primary_key=True)
    workspace_id: UUID
    claim_no: int
    session_id: UUID
    provider: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    started_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    outcome: str | None = Field(default=None, sa_type=Text)
    billed: str | None = Field(default=None, sa_type=Text)
    late: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    late_output: str | None = Field(default=None, sa_type=Text)
    provider_request_id: str | None = Field(default=None, sa_type=Text)
    usage: str | None = Field(default=None, sa_type=JSON)
    usage_raw: str | None = Field(default=None, sa_type=Text)
    verbatim: str | None = Field(default=None, sa_type=Text)  # of runs with a `flow` only
    cost: str | None = Field(default=None, sa_type=JSON)
    cost_nanousd: int | None = Field(default=None, sa_type=BigInteger)
    price_version: str | None = Field(default=None, sa_type=Text)
    error_code: str | None = Field(default=None, sa_type=Text)
    error_message: str | None = Field(default=None, sa_type=Text)


class LanePauseRow(Table, table=True):
    """A lane the operator has paused; Redis only holds a copy of this."""

    __tablename__ = "lane_pauses"
    __table_args__ = (one_of("lane", Lane),)

    lane: str = Field(primary_key=True, sa_type=Text)
    paused_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )


class MessageRow(Table, table=True):
    """One message of a turn, written in the transaction that finished the turn's run."""

    __tablename__ = "messages"
    __table_args__ = (
        to("threads", "workspace_id", "thread_id"),
        one_of("role", ("user", "assistant")),
    )

    workspace_id: UUID = Field(primary_key=True)
    thread_id: UUID = Field(primary_key=True)
    channel: str = Field(primary_key=True, sa_type=Text)
    turn: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    run_id: UUID
    environment_id: UUID | None = None  # that of its run; older rows do not say it
    role: str = Field(sa_type=Text)
    content: str = Field(sa_type=Text)


class IdempotencyKeyRow(Table, table=True):
    """A key that made a run. Written in the run's own transaction."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        to("runs", "workspace_id", "run_id"),
        CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint_is_sha256"),
        Index("ix_idempotency_keys_expires_at", "expires_at"),
        Index("ix_idempotency_keys_run_id", "run_id"),
    )

    workspace_id: UUID = Field(primary_key=True)
    operation: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=Text)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    run_id: UUID
    expires_at: datetime = Field(sa_type=UtcDateTime)
