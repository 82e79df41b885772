"""The audit, and environments whose deletion has begun."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

INDEXES = {
    "ix_audit_log_workspace_id_id": ["workspace_id", "id"],
    "ix_audit_log_action": ["workspace_id", "action", "id"],
    "ix_audit_log_key_id": ["workspace_id", "key_id", "id"],
    "ix_audit_log_target_id": ["workspace_id", "target_id", "id"],
    "ix_audit_log_target_name": ["workspace_id", "target_name", "id"],
}


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=True),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("key_name", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target_kind", sa.Text(), nullable=False),
        sa.Column("target_id", sa.Uuid(), nullable=True),
        sa.Column("target_name", sa.Text(), nullable=False),
        sa.Column(
            "environment_ids", postgresql.ARRAY(sa.UUID()), server_default="{}", nullable=False
        ),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.CheckConstraint("actor IN ('key', 'operator')", name=op.f("ck_audit_log_actor_known")),
        sa.CheckConstraint(
            "(actor = 'key') = (key_id IS NOT NULL)", name=op.f("ck_audit_log_key_iff_by_key")
        ),
        sa.CheckConstraint(
            "actor = 'operator' OR workspace_id IS NOT NULL",
            name=op.f("ck_audit_log_of_a_workspace"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_audit_log_workspace_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    for name, columns in INDEXES.items():
        op.create_index(name, "audit_log", columns)
    # Both are moments under a lock: a column without a default, and a look at a few rows.
    op.add_column(
        "environments", sa.Column("deleting_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_check_constraint(
        op.f("ck_environments_default_stays"),
        "environments",
        "NOT (is_default AND deleting_at IS NOT NULL)",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_environments_default_stays"), "environments", type_="check")
    op.drop_column("environments", "deleting_at")
    op.drop_table("audit_log")
