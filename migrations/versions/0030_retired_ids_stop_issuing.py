"""Nothing is issued with a retired External ID, so retiring one moves the epoch, as withdrawing one does."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_MOVE = "UPDATE configuration SET epoch = epoch + 1 WHERE id = 1"
_NOTE = "INSERT INTO epoch_changes (epoch, row_id) SELECT epoch, OLD.id FROM configuration WHERE true ON CONFLICT DO NOTHING"
_FORGET = "DELETE FROM epoch_changes WHERE epoch < (SELECT epoch - 1000 FROM configuration)"
_WITHDRAWN = "OLD.withdrawn_at IS NULL AND NEW.withdrawn_at IS NOT NULL"
_RETIRED = "OLD.state <> 'retired' AND NEW.state = 'retired'"
_TRIGGER = "external_ids_update_moves_epoch"


def upgrade() -> None:
    _move_epoch_when(f"({_WITHDRAWN}) OR ({_RETIRED})")


def downgrade() -> None:
    _move_epoch_when(_WITHDRAWN)


def _move_epoch_when(condition: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"DROP TRIGGER {_TRIGGER} ON external_ids")
        op.execute(
            f"CREATE CONSTRAINT TRIGGER {_TRIGGER} AFTER UPDATE ON external_ids DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION deputy_move_epoch()"
        )
        return
    op.execute(f"DROP TRIGGER {_TRIGGER}")
    op.execute(
        f"CREATE TRIGGER {_TRIGGER} AFTER UPDATE ON external_ids WHEN {condition} BEGIN {_MOVE}; {_NOTE}; {_FORGET}; END"
    )
