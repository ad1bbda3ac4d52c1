"""A session is found in the audit log by its access key id, and a key says when it was last used."""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

_INDEX = "ix_audit_events_access_key"
_COLUMNS = ["access_key_id", "id"]
_FIRST = sa.text("access_key_id IS NOT NULL")


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    # The index is built after a commit. If that fails, the columns are there already at the next attempt.
    again = {"if_not_exists": True} if postgresql else {}
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True), **again)
    op.add_column("audit_events", sa.Column("access_key_id", sa.String(128), nullable=True), **again)
    if not postgresql:
        op.create_index(_INDEX, "audit_events", _COLUMNS, sqlite_where=_FIRST)
        return
    with op.get_context().autocommit_block():
        op.drop_index(_INDEX, "audit_events", if_exists=True)  # of an attempt that failed
        _build(f"({', '.join(_COLUMNS)}) WHERE {_FIRST}")


def downgrade() -> None:
    op.drop_index(_INDEX, "audit_events")
    op.drop_column("audit_events", "access_key_id")
    op.drop_column("api_keys", "last_used_at")


def _build(columns: str) -> None:
    op.execute(f"CREATE INDEX {_INDEX} ON ONLY audit_events {columns}")  # and on later months
    months = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_events'::regclass"
    for month in op.get_bind().scalars(sa.text(months)).all():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {month}_access_key")
        op.execute(f"CREATE INDEX CONCURRENTLY {month}_access_key ON {month} {columns}")
        op.execute(f"ALTER INDEX {_INDEX} ATTACH PARTITION {month}_access_key")
