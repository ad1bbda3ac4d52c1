"""A tenant's or a connection's events of one action are found by an index, however many credentials it was issued."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_RARE = sa.text("(action < 'credentials.issued' OR action > 'credentials.issued')")
_INDEXES = {"tenant_action": ["tenant_id", "action", "id"], "connection_action": ["connection_id", "action", "id"]}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, columns in _INDEXES.items():
            op.drop_index(f"ix_audit_events_{name}", "audit_events", if_exists=True)  # of an attempt that failed
            if op.get_bind().dialect.name == "sqlite":
                op.create_index(f"ix_audit_events_{name}", "audit_events", columns, sqlite_where=_RARE)
            else:
                _build(name, f"({', '.join(columns)}) WHERE {_RARE}")


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(f"ix_audit_events_{name}", "audit_events")


def _build(name: str, what: str) -> None:
    op.execute(f"CREATE INDEX ix_audit_events_{name} ON ONLY audit_events {what}")  # and on later months
    months = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_events'::regclass"
    for month in op.get_bind().scalars(sa.text(months)).all():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {month}_{name}")
        op.execute(f"CREATE INDEX CONCURRENTLY {month}_{name} ON {month} {what}")
        op.execute(f"ALTER INDEX ix_audit_events_{name} ATTACH PARTITION {month}_{name}")
