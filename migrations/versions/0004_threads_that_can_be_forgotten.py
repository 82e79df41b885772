"""Threads that can be forgotten, and what each environment knows of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

SCHEDULED_TURN = sa.text("needs_turn AND status = 'scheduled'")
# Rows of messages say no environment here, and need not: their runs do.
FILL = """
UPDATE threads t SET environment_ids = f.environment_ids FROM (
  SELECT workspace_id, thread_id, array_agg(DISTINCT environment_id) AS environment_ids
  FROM runs GROUP BY workspace_id, thread_id) AS f
WHERE f.workspace_id = t.workspace_id AND f.thread_id = t.id
"""


def upgrade() -> None:
    op.add_column("threads", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "threads",
        sa.Column(
            "environment_ids", postgresql.ARRAY(sa.UUID()), server_default="{}", nullable=False
        ),
    )
    op.add_column("messages", sa.Column("environment_id", sa.Uuid(), nullable=True))
    op.add_column("runs", sa.Column("history_from", sa.Integer(), nullable=True))
    op.create_index(
        "ix_runs_scheduled_turn",
        "runs",
        ["workspace_id", "thread_id"],
        postgresql_where=SCHEDULED_TURN,
    )
    op.execute(FILL)


def downgrade() -> None:
    op.drop_index("ix_runs_scheduled_turn", table_name="runs", postgresql_where=SCHEDULED_TURN)
    op.drop_column("runs", "history_from")
    op.drop_column("messages", "environment_id")
    op.drop_column("threads", "environment_ids")
    op.drop_column("threads", "deleted_at")
