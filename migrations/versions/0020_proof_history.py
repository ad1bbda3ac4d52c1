"""Proofs that say the same count up in one row; why a proof was made, and why the next one is due."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_TRIGGERS = "'created', 'scheduled', 'requested', 'registered', 'rotation', 'issuing', 'resumed'"


def upgrade() -> None:
    op.add_column("proofs", sa.Column("warnings", sa.JSON(), server_default=sa.text("'[]'"), nullable=False))
    op.add_column("proofs", sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=False))
    # SQLite adds no column that may not be null without a default.
    epoch = sa.text("'1970-01-01 00:00:00+00'" if _postgresql() else "'1970-01-01 00:00:00.000000'")
    op.add_column("proofs", sa.Column("first_at", sa.DateTime(timezone=True), server_default=epoch, nullable=False))
    op.execute("UPDATE proofs SET first_at = checked_at")
    # In words: Alembic would make SQLite's tables again for the CHECKs, and with the old ones their triggers would go.
    for table, column, before in (("proofs", "trigger", "scheduled"), ("connections", "due_for", "created")):
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN {column} VARCHAR(20) DEFAULT '{before}' NOT NULL"
            f" CONSTRAINT ck_{table}_{column} CHECK ({column} IN ({_TRIGGERS}))"
        )
    if _postgresql():
        for table, column in (("proofs", "first_at"), ("proofs", "trigger"), ("connections", "due_for")):
            op.alter_column(table, column, server_default=None)
    op.execute("UPDATE connections SET due_for = 'scheduled' WHERE proof_id IS NOT NULL")


def downgrade() -> None:
    op.drop_column("connections", "due_for")
    for column in ("trigger", "first_at", "count", "warnings"):
        op.drop_column("proofs", column)


def _postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"
