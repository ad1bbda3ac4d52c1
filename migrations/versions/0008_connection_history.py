"""Read a connection's newest proofs and approvals without sorting all of them."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("proofs", "approvals")


def upgrade() -> None:
    for table in _TABLES:
        op.create_index(f"ix_{table}_of_connection", table, ["connection_id", "id"], unique=False)
        op.drop_index(f"ix_{table}_connection_id", table)


def downgrade() -> None:
    for table in _TABLES:
        op.create_index(f"ix_{table}_connection_id", table, ["connection_id"], unique=False)
        op.drop_index(f"ix_{table}_of_connection", table)
