"""Accounts, their ledger, budgets, and what calls under way hold of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

HELD_BACK = "status = 'queued' AND status_reason = 'budget_hold'"
REFUSE = """
CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'lines of the ledger are never changed or deleted: add one that puts it right'
    USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
GUARD = """
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()
"""


# Nothing in them is new. They come first, so that one that is cut off leaves nothing behind but
# itself, to be built anew.
INDEXES = {
    "ix_runs_budget_hold": f"runs (workspace_id, available_at) WHERE {HELD_BACK}",
    "ix_attempts_workspace_id_started_at": "attempts (workspace_id, started_at)",
}


def upgrade() -> None:
    # Beside the running system, for as long as it takes.
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        for name, of in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {of}")
        op.execute("SET statement_timeout = '300s'")
    # Columns without a default, or with a constant one: no row is written.
    op.add_column(
        "workspaces", sa.Column("accounted", sa.Boolean(), server_default="false", nullable=False)
    )
    op.add_column("workspaces", sa.Column("max_request_nanousd", sa.BigInteger(), nullable=True))
    op.add_column("runs", sa.Column("max_nanousd", sa.BigInteger(), nullable=True))
    _accounts()
    _ledger()
    _budgets()
    _holds()


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("metered", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("balance_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("held_nanousd >= 0", name=op.f("ck_accounts_holds_are_debts")),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_accounts_workspace_id")
        ),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("pk_accounts")),
        postgresql_with={"fillfactor": "50"},
    )


def _ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "kind IN ('grant', 'charge', 'correction')", name=op.f("ck_ledger_kind_known")
        ),
        sa.CheckConstraint("amount_nanousd <> 0", name=op.f("ck_ledger_moves_something")),
        sa.CheckConstraint(
            "(kind = 'grant') = (run_id IS NULL)", name=op.f("ck_ledger_charged_for_a_run")
        ),
        sa.CheckConstraint(
            "(run_id IS NULL) = (attempt IS NULL)", name=op.f("ck_ledger_charged_for_a_call")
        ),
        sa.CheckConstraint(
            "kind <> 'charge' OR amount_nanousd < 0", name=op.f("ck_ledger_charges_take")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_ledger_workspace_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger")),
    )
    op.create_index("ix_ledger_workspace_id_id", "ledger", ["workspace_id", "id"])
    op.create_index(
        "uq_ledger_attempt",
        "ledger",
        ["run_id", "attempt", "kind"],
        unique=True,
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.execute(REFUSE)
    op.execute(GUARD)


def _budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("environment_id", sa.Uuid(), nullable=True),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("limit_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("period_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spent_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("period IN ('day', 'month')", name=op.f("ck_budgets_period_known")),
        sa.CheckConstraint(
            "(environment_id IS NULL) <> (key_id IS NULL)",
            name=op.f("ck_budgets_of_an_environment_or_a_key"),
        ),
        sa.CheckConstraint("limit_nanousd >= 0", name=op.f("ck_budgets_limit_known")),
        sa.CheckConstraint("held_nanousd >= 0", name=op.f("ck_budgets_holds_are_debts")),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_budgets_workspace_id")
        ),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_budgets_key_id")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "environment_id"],
            ["environments.workspace_id", "environments.id"],
            name=op.f("fk_budgets_workspace_id_environment_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        postgresql_with={"fillfactor": "50"},
    )
    for name, column in {
        "uq_budgets_environment": "environment_id",
        "uq_budgets_key": "key_id",
    }.items():
        op.create_index(
            name,
            "budgets",
            ["workspace_id", column, "period"],
            unique=True,
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )


def _holds() -> None:
    op.create_table(
        "holds",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("metered", sa.Boolean(), nullable=False),
        sa.Column("amount_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("budget_ids", postgresql.ARRAY(sa.UUID()), server_default="{}", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_nanousd", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("amount_nanousd >= 0", name=op.f("ck_holds_amount_known")),
        sa.CheckConstraint(
            "(settled_at IS NULL) = (settled_nanousd IS NULL)",
            name=op.f("ck_holds_settled_at_once"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_holds_workspace_id")
        ),
        sa.PrimaryKeyConstraint("run_id", "attempt", name=op.f("pk_holds")),
    )
    op.create_index("ix_holds_workspace_id", "holds", ["workspace_id"])


def downgrade() -> None:
    op.drop_index("ix_attempts_workspace_id_started_at", table_name="attempts")
    op.drop_index("ix_runs_budget_hold", table_name="runs")
    op.drop_table("holds")
    op.drop_table("budgets")
    op.drop_table("ledger")
    op.execute("DROP FUNCTION refuse_ledger_change")
    op.drop_table("accounts")
    op.drop_column("runs", "max_nanousd")
    op.drop_column("workspaces", "max_request_nanousd")
    op.drop_column("workspaces", "accounted")
