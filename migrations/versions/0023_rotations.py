"""Rotations of External IDs: which one replaces which, what single roles said to it, and External IDs withdrawn."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# As in 0019: withdrawing an External ID takes something away from every connection that is paired with it.
_MOVE = "UPDATE configuration SET epoch = epoch + 1 WHERE id = 1"
_NOTE = "INSERT INTO epoch_changes (epoch, row_id) SELECT epoch, OLD.id FROM configuration WHERE true ON CONFLICT DO NOTHING"
_FORGET = "DELETE FROM epoch_changes WHERE epoch < (SELECT epoch - 1000 FROM configuration)"
_WITHDRAWN = "OLD.withdrawn_at IS NULL AND NEW.withdrawn_at IS NOT NULL"
_TRIGGER = "external_ids_update_moves_epoch"


def upgrade() -> None:
    op.add_column("external_ids", sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True))
    rotating = sa.text("state IN ('next', 'retiring')")
    op.create_index(
        "ix_external_ids_rotating", "external_ids", ["tenant_id"], sqlite_where=rotating, postgresql_where=rotating
    )
    op.create_table(
        "rotations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("external_id_id", sa.Uuid(), nullable=False),
        sa.Column("next_external_id_id", sa.Uuid(), nullable=False),
        sa.Column("emergency", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_rotations_tenant_id"),
        _of_tenant("rotations", "external_id_id"),
        _of_tenant("rotations", "next_external_id_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rotations"),
    )
    op.create_index("ix_rotations_tenant_id", "rotations", ["tenant_id", "id"])
    op.create_table(
        "external_id_trials",
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("external_id_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_again_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_external_id_trials_tenant_id"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "connection_id"],
            ["connections.tenant_id", "connections.id"],
            name="fk_external_id_trials_tenant_id_connection_id",
            ondelete="CASCADE",
        ),
        _of_tenant("external_id_trials", "external_id_id"),
        sa.PrimaryKeyConstraint("connection_id", "external_id_id", name="pk_external_id_trials"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE CONSTRAINT TRIGGER {_TRIGGER} AFTER UPDATE ON external_ids DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW WHEN ({_WITHDRAWN}) EXECUTE FUNCTION deputy_move_epoch()"
        )
    else:
        op.execute(
            f"CREATE TRIGGER {_TRIGGER} AFTER UPDATE ON external_ids WHEN ({_WITHDRAWN})"
            f" BEGIN {_MOVE}; {_NOTE}; {_FORGET}; END"
        )


def _of_tenant(table: str, column: str) -> sa.ForeignKeyConstraint:
    """The External ID is the same tenant's."""
    name = f"fk_{table}_tenant_id_{column}"
    return sa.ForeignKeyConstraint(["tenant_id", column], ["external_ids.tenant_id", "external_ids.id"], name=name)


def downgrade() -> None:
    on = " ON external_ids" if op.get_bind().dialect.name == "postgresql" else ""
    op.execute(f"DROP TRIGGER {_TRIGGER}{on}")
    op.drop_table("external_id_trials")
    op.drop_table("rotations")
    op.drop_index("ix_external_ids_rotating", "external_ids")
    op.drop_column("external_ids", "withdrawn_at")
