"""When a connection was tried last, and since when its role refuses its own External ID."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_INDEX = "ix_connections_tried_at"


def upgrade() -> None:
    for name in ("tried_at", "refusing_since"):
        op.add_column("connections", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.create_index(_INDEX, "connections", ["tried_at"])


def downgrade() -> None:
    op.drop_index(_INDEX, table_name="connections")
    for name in ("refusing_since", "tried_at"):
        op.drop_column("connections", name)
