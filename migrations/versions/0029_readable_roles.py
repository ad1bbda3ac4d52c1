"""Whether a connection's role let itself be read, so that a change of it is noticed once."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("connections", sa.Column("reads_itself", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("connections", "reads_itself")
