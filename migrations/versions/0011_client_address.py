"""An audit event holds the address that its request came from."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_events", sa.Column("client_address", sa.String(length=45), nullable=True))


def downgrade() -> None:
    op.drop_column("audit_events", "client_address")
