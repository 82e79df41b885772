"""Pins: which version an environment runs of a prompt, and who moved that."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "environment_pins",
        sa.Column("environment_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("pinned_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "environment_id"],
            ["environments.workspace_id", "environments.id"],
            name=op.f("fk_environment_pins_workspace_id_environment_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "prompt_id", "version_id"],
            ["prompt_versions.workspace_id", "prompt_versions.prompt_id", "prompt_versions.id"],
            name=op.f("fk_environment_pins_workspace_id_prompt_id_version_id"),
        ),
        sa.PrimaryKeyConstraint("environment_id", "prompt_id", name=op.f("pk_environment_pins")),
    )
    op.create_index("ix_environment_pins_prompt_id", "environment_pins", ["prompt_id"])
    op.create_table(
        "environment_pin_history",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("environment_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.Uuid(), nullable=False),
        sa.Column("from_number", sa.Integer(), nullable=True),
        sa.Column("to_number", sa.Integer(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("source_environment_id", sa.Uuid(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "from_number IS NOT NULL OR to_number IS NOT NULL",
            name=op.f("ck_environment_pin_history_moves"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "environment_id"],
            ["environments.workspace_id", "environments.id"],
            name=op.f("fk_environment_pin_history_workspace_id_environment_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "prompt_id"],
            ["prompts.workspace_id", "prompts.id"],
            name=op.f("fk_environment_pin_history_workspace_id_prompt_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environment_pin_history")),
    )
    op.create_index(
        "ix_environment_pin_history_environment_id_prompt_id_id",
        "environment_pin_history",
        ["environment_id", "prompt_id", "id"],
    )


def downgrade() -> None:
    op.drop_table("environment_pin_history")
    op.drop_table("environment_pins")
