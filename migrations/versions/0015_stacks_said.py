"""What the messages of a role's stack last said of that stack: made, rolled back or deleted."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # In words: Alembic would make SQLite's table again for the CHECK, and with the old one its triggers would go.
    op.execute(
        "ALTER TABLE connections ADD COLUMN stack VARCHAR(20)"
        " CONSTRAINT ck_connections_stack CHECK (stack IN ('made', 'rolled_back', 'deleted'))"
    )


def downgrade() -> None:
    op.drop_column("connections", "stack")
