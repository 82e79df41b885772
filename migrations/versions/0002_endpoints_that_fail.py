"""endpoints that fail."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

PENDING = sa.text("status = 'pending'")


def upgrade() -> None:
    op.create_table(
        "failing_endpoints",
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("spaced_failures", sa.Integer(), nullable=False),
        sa.Column("spaced_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pause_s", sa.Float(), nullable=True),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(paused_until IS NULL) = (pause_s IS NULL)",
            name=op.f("ck_failing_endpoints_paused_for_a_time"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "endpoint_id"],
            ["webhook_endpoints.workspace_id", "webhook_endpoints.id"],
            name=op.f("fk_failing_endpoints_workspace_id_endpoint_id"),
        ),
        sa.PrimaryKeyConstraint("endpoint_id", name=op.f("pk_failing_endpoints")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index(
        "ix_deliveries_endpoint_due",
        "deliveries",
        ["endpoint_id", "next_try_at"],
        postgresql_where=PENDING,
    )
    # Workers of the version before find what is due without it, only more slowly.
    op.drop_index("ix_deliveries_due", table_name="deliveries", postgresql_where=PENDING)


def downgrade() -> None:
    op.create_index("ix_deliveries_due", "deliveries", ["next_try_at"], postgresql_where=PENDING)
    op.drop_index("ix_deliveries_endpoint_due", table_name="deliveries", postgresql_where=PENDING)
    op.drop_table("failing_endpoints")
