"""One index answers the onboarding page: where a connection stands is in its row, and no proof has to be read for it."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_INDEX = "ix_connections_standing"


def upgrade() -> None:
    op.add_column("connections", sa.Column("refuses", sa.Boolean(), server_default=sa.false(), nullable=False))
    # As Connection.take decides it, of the latest proof.
    op.execute(
        "UPDATE connections SET refuses = true WHERE status = 'pending'"
        " AND NOT (sought AND verified_at IS NULL AND stack IS NULL)"
        " AND proof_id IN (SELECT id FROM proofs WHERE verdict = 'unassumable')"
    )
    op.create_index(_INDEX, "connections", ["tenant_id", "status", "refuses", "id"])


def downgrade() -> None:
    op.drop_index(_INDEX, table_name="connections")
    op.drop_column("connections", "refuses")
