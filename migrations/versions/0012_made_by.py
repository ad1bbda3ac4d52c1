"""Who made a key or an onboarding link, which key succeeds which, and for which permission sets a key is.

Another permission set of a connection moves the epoch, so that a key for other sets is refused at once by every
process. Keys and links from before have no maker, and keys from before are for any set.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_MOVE = "UPDATE configuration SET epoch = epoch + 1 WHERE id = 1"
_BEFORE = (
    "OLD.status = 'verified' AND (NEW.status <> 'verified' OR NEW.version <> OLD.version"
    " OR NEW.tenant_id <> OLD.tenant_id OR NEW.id <> OLD.id OR NEW.role_arn <> OLD.role_arn"
    " OR NEW.external_id_id <> OLD.external_id_id OR NEW.role_unique_id <> OLD.role_unique_id"
)
_COLUMNS = (("api_keys", "made_by"), ("api_keys", "replaced_by"), ("onboarding_links", "made_by"))


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("permission_sets", sa.JSON(none_as_null=True), nullable=True))
    for table, column in _COLUMNS:
        op.add_column(table, sa.Column(column, sa.Uuid(), nullable=True))
        op.create_index(f"ix_{table}_{column}", table, [column])
    _move_epoch_when(f"{_BEFORE} OR NEW.permission_set <> OLD.permission_set)")


def downgrade() -> None:
    _move_epoch_when(f"{_BEFORE})")
    for table, column in reversed(_COLUMNS):
        op.drop_index(f"ix_{table}_{column}", table_name=table)
        op.drop_column(table, column)
    op.drop_column("api_keys", "permission_sets")


def _move_epoch_when(condition: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER connections_update_moves_epoch ON connections")
        op.execute(
            "CREATE CONSTRAINT TRIGGER connections_update_moves_epoch AFTER UPDATE ON connections"
            f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION deputy_move_epoch()"
        )
        return
    op.execute("DROP TRIGGER connections_update_moves_epoch")
    op.execute(
        f"CREATE TRIGGER connections_update_moves_epoch AFTER UPDATE ON connections WHEN {condition} BEGIN {_MOVE}; END"
    )
