"""Aliases of models, and what one stood for when a run was submitted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "model_aliases",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("models", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("weights", postgresql.ARRAY(sa.Integer()), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "strategy IN ('Sequential', 'Random', 'WeightedRandom', 'RoundRobin')",
            name=op.f("ck_model_aliases_strategy_known"),
        ),
        sa.CheckConstraint(
            "cardinality(models) > 0", name=op.f("ck_model_aliases_stands_for_something")
        ),
        sa.CheckConstraint(
            "(strategy = 'WeightedRandom') = (weights IS NOT NULL)",
            name=op.f("ck_model_aliases_weights_iff_weighted"),
        ),
        sa.CheckConstraint(
            "weights IS NULL OR cardinality(weights) = cardinality(models)",
            name=op.f("ck_model_aliases_weights_fit"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_model_aliases_workspace_id")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "alias", name=op.f("pk_model_aliases")),
    )
    # A moment under a lock: a column without a default rewrites nothing.
    op.add_column("runs", sa.Column("models", postgresql.ARRAY(sa.Text()), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "models")
    op.drop_table("model_aliases")
