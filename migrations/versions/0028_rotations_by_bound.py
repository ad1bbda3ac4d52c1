"""Whether a bound key began a rotation. Those from before count as the vendor's."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rotations", sa.Column("by_bound", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("rotations", "by_bound")
