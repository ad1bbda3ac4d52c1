"""An index of the connections that were never tried: a claim of what is due takes these first."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NEVER_TRIED = sa.text("proof_id IS NULL")


def upgrade() -> None:
    op.create_index(
        "ix_connections_due_first", "connections", ["due_at"], sqlite_where=_NEVER_TRIED, postgresql_where=_NEVER_TRIED
    )


def downgrade() -> None:
    op.drop_index("ix_connections_due_first", table_name="connections")
