"""A tenant and a connection that are suspended say since when, by whom and why."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("suspended_at", sa.DateTime(timezone=True)),
    ("suspended_by", sa.String(length=16)),
    ("suspended_by_bound", sa.Boolean()),
    ("suspended_reason", sa.String(length=200)),
)


def upgrade() -> None:
    for table in ("tenants", "connections"):
        for name, kind in _COLUMNS:
            op.add_column(table, sa.Column(name, kind, nullable=True))
        _take_from_audit_log(table)


def downgrade() -> None:
    for table in ("tenants", "connections"):
        for name, _ in _COLUMNS:
            op.drop_column(table, name)


def _take_from_audit_log(table: str) -> None:
    """For what is suspended already; there are few. Whose key it was counts as the vendor's, which is the stricter."""
    noun = table[:-1]
    events = sa.table(
        "audit_events",
        *(sa.column(name) for name in ("action", "actor_kind")),
        sa.column("id", sa.Uuid()),
        sa.column(f"{noun}_id", sa.Uuid()),
        sa.column("at", sa.DateTime(timezone=True)),
        sa.column("details", sa.JSON()),
    )
    rows = sa.table(
        table, sa.column("id", sa.Uuid()), sa.column("status"), *(sa.column(name, kind) for name, kind in _COLUMNS)
    )
    db = op.get_bind()
    for (thing,) in db.execute(sa.select(rows.c.id).where(rows.c.status == "suspended")).all():
        query = sa.select(events).where(events.c[f"{noun}_id"] == thing, events.c.action == f"{noun}.suspended")
        event = db.execute(query.order_by(events.c.id.desc()).limit(1)).one_or_none()
        if event is not None:
            db.execute(
                sa.update(rows)
                .where(rows.c.id == thing)
                .values(
                    suspended_at=event.at,
                    suspended_by=event.actor_kind,
                    suspended_by_bound=False,
                    suspended_reason=event.details["reason"],
                )
            )
