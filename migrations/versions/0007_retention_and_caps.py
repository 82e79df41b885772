"""Retention, caps, and the marks and indexes that both need."""

from alembic import op

revision = "0007"
down_revision = "0006"

# Old and new code run beside each other on all of this. Columns are without a default, so none of
# it rewrites a table; every step may be repeated, should the building of an index be cut off.
COLUMNS = {
    "workspaces": ("retain_contents_days integer", "retain_runs_days integer"),
    "environments": (
        "retain_contents_days integer",
        "retain_runs_days integer",
        "max_queued_runs integer",
        "max_running_runs integer",
    ),
    "runs": ("contents_erased_at timestamptz",),
}
CHECKS = {
    "workspaces": {
        "retained_contents_days": "retain_contents_days BETWEEN 0 AND 3650",
        "retained_runs_days": "retain_runs_days BETWEEN 1 AND 3650",
    },
    "environments": {
        "retained_contents_days": "retain_contents_days BETWEEN 0 AND 3650",
        "retained_runs_days": "retain_runs_days BETWEEN 1 AND 3650",
        "capped_queued_runs": "max_queued_runs > 0",
        "capped_running_runs": "max_running_runs > 0",
    },
}
INDEXES = {
    "ix_runs_kept": (
        "runs",
        "(environment_id, finished_at)",
        "finished_at IS NOT NULL AND contents_erased_at IS NULL",
    ),
    "ix_runs_erased": (
        "runs",
        "(environment_id, finished_at)",
        "contents_erased_at IS NOT NULL",
    ),
    "ix_runs_parked": (
        "runs",
        "(environment_id, priority DESC, id)",
        "status = 'queued' AND status_reason = 'backlog'",
    ),
    "ix_idempotency_keys_run_id": ("idempotency_keys", "(run_id)", None),
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")
    for table, checks in CHECKS.items():
        for name, condition in checks.items():
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS ck_{table}_{name}")
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    # Beside the running system, for as long as it takes.
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        for name, (table, columns_of, where) in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(
                f"CREATE INDEX CONCURRENTLY {name} ON {table} {columns_of}"
                + (f" WHERE {where}" if where else "")
            )
        op.execute("SET statement_timeout = '300s'")


def downgrade() -> None:
    for name, (table, _, _) in INDEXES.items():
        op.drop_index(name, table_name=table)
    for table, checks in CHECKS.items():
        for name in checks:
            op.drop_constraint(op.f(f"ck_{table}_{name}"), table, type_="check")
    for table, columns in COLUMNS.items():
        for column in columns:
            op.drop_column(table, column.split()[0])
