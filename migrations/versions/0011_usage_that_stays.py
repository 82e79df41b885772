"""Usage added up: by hour and day, with what has been added, and calls that may still change."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "usage_sums",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("span", sa.Text(), nullable=False),
        sa.Column("begins_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("environment_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('all', 'prompt', 'version', 'model', 'key', 'tag')",
            name=op.f("ck_usage_sums_kind_known"),
        ),
        sa.CheckConstraint("span IN ('hour', 'day')", name=op.f("ck_usage_sums_span_known")),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_usage_sums_workspace_id")
        ),
        sa.PrimaryKeyConstraint(
            "workspace_id",
            "kind",
            "span",
            "begins_at",
            "environment_id",
            "name",
            name=op.f("pk_usage_sums"),
        ),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_table(
        "usage_marks",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_usage_marks_workspace_id")
        ),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("pk_usage_marks")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "usage_open",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("look_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_usage_open")),
    )
    op.create_index(
        "ix_usage_open_workspace_id_started_at", "usage_open", ["workspace_id", "started_at"]
    )
    op.create_index("ix_usage_open_look_at", "usage_open", ["look_at"])


def downgrade() -> None:
    op.drop_table("usage_open")
    op.drop_table("usage_marks")
    op.drop_table("usage_sums")
