"""A deployment's random id, by which registration tokens name it: a message for another deployment is not ours to
answer.
"""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Made as the column's default, in one statement: the row that is there gets it, and the table has only one.
    made = sa.text(f"'{uuid.uuid4().hex}'")
    op.add_column("configuration", sa.Column("deployment_id", sa.Uuid(), nullable=False, server_default=made))
    if op.get_bind().dialect.name == "postgresql":  # SQLite can't take a default away
        op.alter_column("configuration", "deployment_id", server_default=None)


def downgrade() -> None:
    op.drop_column("configuration", "deployment_id")
