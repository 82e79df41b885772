"""What the flows door adds to a run, and its vendors' answers as they came."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("runs", sa.Column("flow", sa.JSON(), nullable=True))
    op.add_column("attempts", sa.Column("verbatim", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "verbatim")
    op.drop_column("runs", "flow")
