"""Every proven role has its turn in each interval: what is due has one index for routine proofs, and one for the rest."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_LANES = {
    "ix_connections_due_urgent": sa.text("due_for <> 'scheduled' OR status = 'pending'"),
    "ix_connections_due_routine": sa.text("due_for = 'scheduled' AND status <> 'pending'"),
}


def upgrade() -> None:
    # Those that were at rest, spread over the next hour; from then on each has its own turn.
    in_an_hour = (
        "now() + random() * interval '1 hour'"
        if op.get_bind().dialect.name == "postgresql"
        else "strftime('%Y-%m-%d %H:%M:%S', 'now', '+' || abs(random() % 3600) || ' seconds') || '.000000'"
    )
    op.execute(
        f"UPDATE connections SET due_at = {in_an_hour}"  # noqa: S608  nothing in it is anybody's
        " WHERE due_at IS NULL AND status IN ('verified', 'broken', 'insecure')"
    )
    op.drop_index("ix_connections_due_at", table_name="connections")
    for name, lane in _LANES.items():
        op.create_index(name, "connections", ["due_at"], sqlite_where=lane, postgresql_where=lane)


def downgrade() -> None:
    for name in _LANES:
        op.drop_index(name, table_name="connections")
    op.create_index("ix_connections_due_at", "connections", ["due_at"])
