"""Versions of permission sets that were published; which one each role has; and the set that a role is to move to."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_COLUMNS = ("permission_set_version", "wanted_permission_set", "wanted_version", "wanted_approved")
_INDEX, _MOVING = "ix_connections_moving", sa.text("wanted_permission_set IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "permission_set_versions",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_permission_set_versions"),
    )
    op.add_column("connections", sa.Column("permission_set_version", sa.Integer(), nullable=True))
    op.add_column("connections", sa.Column("wanted_permission_set", sa.String(length=64), nullable=True))
    op.add_column("connections", sa.Column("wanted_version", sa.Integer(), nullable=True))
    approved = sa.Column("wanted_approved", sa.Boolean(), server_default=sa.false(), nullable=False)
    op.add_column("connections", approved)
    op.create_index(_INDEX, "connections", ["tenant_id", "id"], sqlite_where=_MOVING, postgresql_where=_MOVING)


def downgrade() -> None:
    op.drop_index(_INDEX, table_name="connections")
    for column in reversed(_COLUMNS):
        op.drop_column("connections", column)
    op.drop_table("permission_set_versions")
