"""The schedule of proofs: since when a connection is on its present one, and which roles Deputy looks for by itself."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("connections", sa.Column("due_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("connections", sa.Column("sought", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index("ix_connections_due_at", "connections", ["due_at"])


def downgrade() -> None:
    op.drop_index("ix_connections_due_at", table_name="connections")
    op.drop_column("connections", "sought")
    op.drop_column("connections", "due_since")
