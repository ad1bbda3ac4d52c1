"""When a role's trust policy ends the access, and the state of a connection whose access ended so."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_BEFORE = "'pending', 'verified', 'broken', 'insecure', 'suspended', 'deleted'"
_AFTER = "'pending', 'verified', 'broken', 'ended', 'insecure', 'suspended', 'deleted'"


def upgrade() -> None:
    op.add_column("connections", sa.Column("access_until", sa.DateTime(timezone=True), nullable=True))
    _allow(_BEFORE, _AFTER)


def downgrade() -> None:
    op.execute("UPDATE connections SET status = 'broken' WHERE status = 'ended'")
    _allow(_AFTER, _BEFORE)
    op.drop_column("connections", "access_until")


def _allow(before: str, after: str) -> None:
    name = "ck_connections_status"
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE connections DROP CONSTRAINT {name}")
        op.execute(f"ALTER TABLE connections ADD CONSTRAINT {name} CHECK (status IN ({after})) NOT VALID")
        op.execute(f"ALTER TABLE connections VALIDATE CONSTRAINT {name}")
        return
    # SQLite's own way of changing a CHECK without making the table again, with which the rows of others that point at
    # it would go, and its triggers: https://www.sqlite.org/lang_altertable.html, section 7.
    version = op.get_bind().exec_driver_sql("PRAGMA schema_version").scalar_one()
    op.execute("PRAGMA writable_schema = ON")
    op.get_bind().execute(
        sa.text(
            "UPDATE sqlite_master SET sql = replace(sql, :before, :after) WHERE type = 'table' AND name = 'connections'"
        ),
        {"before": f"({before})", "after": f"({after})"},
    )
    op.execute(f"PRAGMA schema_version = {version + 1}")
    op.execute("PRAGMA writable_schema = OFF")
