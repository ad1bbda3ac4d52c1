"""Who deleted a connection: what the vendor deleted, a bound key does not add again. Earlier ones count as the vendor's."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("connections", sa.Column("deleted_by_bound", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("connections", "deleted_by_bound")
