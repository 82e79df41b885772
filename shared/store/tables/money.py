"""What is spent: accounts with their ledger, budgets, and what calls under way may still cost."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, func, text
from sqlmodel import Field

from shared.domain.credits import LedgerKind, Period
from shared.store.tables.base import Table, UtcDateTime, UuidArray, one_of, to


class AccountRow(Table, table=True):
    """What a workspace has left, and how much of it calls under way hold.

    The row is the lock of everything about its money. `balance_nanousd` is the sum of the ledger.
    There is one for each workspace that is metered, or has or had a budget.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint("held_nanousd >= 0", name="holds_are_debts"),
        {"postgresql_with": {"fillfactor": "50"}},
    )

    workspace_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("workspaces.id"),))
    metered: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    balance_nanousd: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}
    )
    held_nanousd: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}
    )


class LedgerRow(Table, table=True):
    """A line of a workspace's account. A trigger refuses to change or delete any.

    It points at no run by a key: lines outlive the runs that were paid for.
    """

    __tablename__ = "ledger"
    __table_args__ = (
        one_of("kind", LedgerKind),
        CheckConstraint("amount_nanousd <> 0", name="moves_something"),
        CheckConstraint("(kind = 'grant') = (run_id IS NULL)", name="charged_for_a_run"),
        CheckConstraint("(run_id IS NULL) = (attempt IS NULL)", name="charged_for_a_call"),
        CheckConstraint("kind <> 'charge' OR amount_nanousd < 0", name="charges_take"),
        Index("ix_ledger_workspace_id_id", "workspace_id", "id"),
        Index(
            "uq_ledger_attempt",
            "run_id",
            "attempt",
            "kind",
            unique=True,
            postgresql_where=text("run_id IS NOT NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID = Field(sa_column_args=(ForeignKey("workspaces.id"),))
    kind: str = Field(sa_type=Text)
    amount_nanousd: int = Field(sa_type=BigInteger)
    run_id: UUID | None = None
    attempt: int | None = None
    comment: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )


class BudgetRow(Table, table=True):
    """What an environment or a key may spend in a day or month, and what it has spent of it.

    `spent_nanousd` is that of the period that began at `period_from`; of a later one it is 0.
    """

    __tablename__ = "budgets"
    __table_args__ = (
        to("environments", "workspace_id", "environment_id"),
        one_of("period", Period),
        CheckConstraint(
            "(environment_id IS NULL) <> (key_id IS NULL)", name="of_an_environment_or_a_key"
        ),
        CheckConstraint("limit_nanousd >= 0", name="limit_known"),
        CheckConstraint("held_nanousd >= 0", name="holds_are_debts"),
        Index(
            "uq_budgets_environment",
            "workspace_id",
            "environment_id",
            "period",
            unique=True,
            postgresql_where=text("environment_id IS NOT NULL"),
        ),
        Index(
            "uq_budgets_key",
            "workspace_id",
            "key_id",
            "period",
            unique=True,
            postgresql_where=text("key_id IS NOT NULL"),
        ),
        {"postgresql_with": {"fillfactor": "50"}},
    )

    id: UUID = Field(primary_key=True)
    workspace_id: UUID = Field(sa_column_args=(ForeignKey("workspaces.id"),))
    environment_id: UUID | None = None
    key_id: UUID | None = Field(default=None, sa_column_args=(ForeignKey("api_keys.id"),))
    period: str = Field(sa_type=Text)
    limit_nanousd: int = Field(sa_type=BigInteger)
    period_from: datetime = Field(sa_type=UtcDateTime)
    spent_nanousd: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}
    )
    held_nanousd: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}
    )
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )


class HoldRow(Table, table=True):
    """What one call may still cost; it goes when the cost is known.

    One whose call ended without anybody knowing what it cost stays until it is settled. A settled
    one stays too: its answer may still come, and be charged for the difference.
    """

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint("amount_nanousd >= 0", name="amount_known"),
        CheckConstraint("(settled_at IS NULL) = (settled_nanousd IS NULL)", name="settled_at_once"),
        Index("ix_holds_workspace_id", "workspace_id"),
    )

    run_id: UUID = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    workspace_id: UUID = Field(sa_column_args=(ForeignKey("workspaces.id"),))
    metered: bool
    amount_nanousd: int = Field(sa_type=BigInteger)
    budget_ids: list[UUID] = Field(
        default_factory=list, sa_type=UuidArray, sa_column_kwargs={"server_default": "{}"}
    )
    created_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    settled_nanousd: int | None = Field(default=None, sa_type=BigInteger)


class UsageSumRow(Table, table=True):
    """What calls begun in an hour or a day (UTC) used, of one environment, by one of their traits.

    `name` is an id where the trait has one, and empty for what has none. Calls whose figures are
    final are in it exactly once, of every kind and in both spans; they outlive their runs.
    """

    __tablename__ = "usage_sums"
    __table_args__ = (
        one_of("kind", ("all", "prompt", "version", "model", "key", "tag")),
        one_of("span", ("hour", "day")),
        {"postgresql_with": {"fillfactor": "70"}},
    )

    workspace_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("workspaces.id"),))
    kind: str = Field(primary_key=True, sa_type=Text)
    span: str = Field(primary_key=True, sa_type=Text)
    begins_at: datetime = Field(primary_key=True, sa_type=UtcDateTime)
    environment_id: UUID = Field(primary_key=True)
    name: str = Field(primary_key=True, sa_type=Text)
    calls: int = Field(sa_type=BigInteger)
    runs: int = Field(sa_type=BigInteger)
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    cost_nanousd: int = Field(sa_type=BigInteger)


class UsageMarkRow(Table, table=True):
    """How far a workspace's calls are added up: each begun before is in the sums, or open."""

    __tablename__ = "usage_marks"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    workspace_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("workspaces.id"),))
    until: datetime = Field(sa_type=UtcDateTime)


class UsageOpenRow(Table, table=True):
    """A call from before the mark that is not in the sums yet: its figures may still change."""

    __tablename__ = "usage_open"
    __table_args__ = (
        Index("ix_usage_open_workspace_id_started_at", "workspace_id", "started_at"),
        Index("ix_usage_open_look_at", "look_at"),
    )

    run_id: UUID = Field(primary_key=True)
    number: int = Field(primary_key=True)
    workspace_id: UUID
    started_at: datetime = Field(sa_type=UtcDateTime)
    look_at: datetime = Field(sa_type=UtcDateTime)
