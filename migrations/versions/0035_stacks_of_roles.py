"""A connection knows which stack has its role, so that the page can say how to update it.

Rows from before do not know it until their stack sends its next message.
"""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("connections", sa.Column("stack_id", sa.String(length=512), nullable=True))


def downgrade() -> None:
    op.drop_column("connections", "stack_id")
