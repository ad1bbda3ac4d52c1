"""The audit log can lose its oldest events: whole months on PostgreSQL, where it is partitioned, and rows on SQLite.

PostgreSQL's partitions are ranges of the id, which begins with the time. The table as it was becomes the default
partition, in which its events stay: no row is moved while requests wait. SQLite's trigger lets a row go that is older
than the days in `configuration`; with 0 days it lets none go.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_MONTHS = 4  # this one, and those after it
_APPEND_ONLY = "deputy_refuse('audit_events is append-only')"
_RARE = "action <> 'credentials.issued'"
_INDEXES = {"tenant": "(tenant_id, id)", "connection": "(connection_id, id)", "action": f"(action, id) WHERE {_RARE}"}
_FREE = """NOT EXISTS (
    SELECT 1 FROM configuration WHERE audit_kept_days > 0
    AND OLD.at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || audit_kept_days || ' days'))"""


def upgrade() -> None:
    kept = sa.Column("audit_kept_days", sa.Integer(), server_default=sa.text("0"), nullable=False)
    op.add_column("configuration", kept)
    if op.get_bind().dialect.name == "postgresql":
        _partition()
    else:
        _refuse_delete(f"WHEN {_FREE}")


def downgrade() -> None:
    """Tables that were detached stay."""
    if op.get_bind().dialect.name == "postgresql":
        _unite()
    else:
        _refuse_delete("")
    op.drop_column("configuration", "audit_kept_days")


def _partition() -> None:
    op.execute("DROP TRIGGER audit_events_refuse_update ON audit_events")  # it gets that of the whole
    op.execute("ALTER TABLE audit_events RENAME CONSTRAINT pk_audit_events TO pk_audit_events_default")
    for name in _INDEXES:
        op.execute(f"ALTER INDEX ix_audit_events_{name} RENAME TO ix_audit_events_default_{name}")
    op.execute("ALTER TABLE audit_events RENAME TO audit_events_default")
    key = "CONSTRAINT pk_audit_events PRIMARY KEY (id)"
    op.execute(f"CREATE TABLE audit_events (LIKE audit_events_default, {key}) PARTITION BY RANGE (id)")
    _finish("ONLY")
    month = _first_of_month(op.get_bind().scalar(sa.text("SELECT now()")))
    for _ in range(_MONTHS):
        _make(month)
        month = _first_of_month(month + timedelta(days=31))
    # Last: PostgreSQL reads the table through, once, for events that belong to a month.
    op.execute("ALTER TABLE audit_events ATTACH PARTITION audit_events_default DEFAULT")


def _make(month: datetime) -> None:
    first, end = _first_id(month), _first_id(_first_of_month(month + timedelta(days=31)))
    has_events = sa.text("SELECT EXISTS (SELECT FROM audit_events_default WHERE id >= :first AND id < :end)")
    if not op.get_bind().scalar(has_events, {"first": first, "end": end}):
        name = f"audit_events_{month:%Y_%m}"
        op.execute(f"CREATE TABLE {name} PARTITION OF audit_events FOR VALUES FROM ('{first}') TO ('{end}')")
        _refuse_truncate(name)


def _unite() -> None:
    op.execute("ALTER TABLE audit_events RENAME TO audit_events_months")
    op.execute("CREATE TABLE audit_events (LIKE audit_events_months)")
    op.execute("INSERT INTO audit_events SELECT * FROM audit_events_months")
    op.execute("DROP TABLE audit_events_months")
    op.create_primary_key("pk_audit_events", "audit_events", ["id"])
    _finish("")


def _finish(only: str) -> None:
    for name, what in _INDEXES.items():
        op.execute(f"CREATE INDEX ix_audit_events_{name} ON {only} audit_events {what}")
    op.execute(
        "CREATE TRIGGER audit_events_refuse_update BEFORE UPDATE OR DELETE ON audit_events"
        f" FOR EACH ROW EXECUTE FUNCTION {_APPEND_ONLY}"
    )
    _refuse_truncate("audit_events")


def _refuse_truncate(table: str) -> None:
    """Unlike a trigger for rows, it holds for this table alone, and not for its partitions."""
    op.execute(
        f"CREATE TRIGGER audit_events_refuse_truncate BEFORE TRUNCATE ON {table}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {_APPEND_ONLY}"
    )


def _first_of_month(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _first_id(at: datetime) -> UUID:
    return UUID(int=int(at.timestamp() * 1000) << 80)


def _refuse_delete(when: str) -> None:
    op.execute("DROP TRIGGER audit_events_refuse_delete")
    op.execute(
        f"CREATE TRIGGER audit_events_refuse_delete BEFORE DELETE ON audit_events {when}"
        " BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END"
    )
