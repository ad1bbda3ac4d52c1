"""Which permission set a role has by now, where it is another one than its connection's.

A key for some sets must cover it too, so it moves the epoch. What stacks have said of moves that still wait is taken
over; what tags say is read by the next proofs.
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_MOVE = "UPDATE configuration SET epoch = epoch + 1 WHERE id = 1"
_NOTE = "INSERT INTO epoch_changes (epoch, row_id) SELECT epoch, OLD.id FROM configuration WHERE true ON CONFLICT DO NOTHING"
_FORGET = "DELETE FROM epoch_changes WHERE epoch < (SELECT epoch - 1000 FROM configuration)"
_TRIGGER = "connections_update_moves_epoch"
_BEFORE = (
    "OLD.status = 'verified' AND (NEW.status <> 'verified' OR NEW.version <> OLD.version"
    " OR NEW.tenant_id <> OLD.tenant_id OR NEW.id <> OLD.id OR NEW.role_arn <> OLD.role_arn"
    " OR NEW.external_id_id <> OLD.external_id_id OR NEW.role_unique_id <> OLD.role_unique_id"
    " OR NEW.permission_set <> OLD.permission_set"
)
_COLUMNS = ("tagged_set", "stack_set")


def upgrade() -> None:
    for name in _COLUMNS:
        op.add_column("connections", sa.Column(name, sa.String(length=64), nullable=True))
    op.execute(
        "UPDATE connections SET stack_set = wanted_permission_set"
        " WHERE wanted_permission_set IS NOT NULL AND wanted_version IS NOT NULL"
    )
    differs = "IS DISTINCT FROM" if op.get_bind().dialect.name == "postgresql" else "IS NOT"
    _move_epoch_when(_BEFORE + "".join(f" OR NEW.{name} {differs} OLD.{name}" for name in _COLUMNS) + ")")


def downgrade() -> None:
    _move_epoch_when(f"{_BEFORE})")
    for name in reversed(_COLUMNS):
        op.drop_column("connections", name)


def _move_epoch_when(condition: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"DROP TRIGGER {_TRIGGER} ON connections")
        op.execute(
            f"CREATE CONSTRAINT TRIGGER {_TRIGGER} AFTER UPDATE ON connections DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION deputy_move_epoch()"
        )
        return
    op.execute(f"DROP TRIGGER {_TRIGGER}")
    op.execute(
        f"CREATE TRIGGER {_TRIGGER} AFTER UPDATE ON connections WHEN {condition} BEGIN {_MOVE}; {_NOTE}; {_FORGET}; END"
    )
