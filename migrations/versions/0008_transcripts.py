"""What a run's model handed over through tools, among the texts around it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("runs", sa.Column("transcript", postgresql.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "transcript")
