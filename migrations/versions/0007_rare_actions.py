"""The index by action leaves out issuances, which are nearly all that there is: each of them cost an entry in it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_RARE = sa.text("action <> 'credentials.issued'")


def upgrade() -> None:
    op.drop_index("ix_audit_events_action", table_name="audit_events")
    op.create_index(
        "ix_audit_events_action",
        "audit_events",
        ["action", "id"],
        unique=False,
        sqlite_where=_RARE,
        postgresql_where=_RARE,
    )


def downgrade() -> None:
    op.drop_index("ix_audit_events_action", table_name="audit_events")
    op.create_index("ix_audit_events_action", "audit_events", ["action", "id"], unique=False)
