"""What the epoch moved for: a row for each key, tenant and connection from which something was taken away.

A process reads them when it learns of another epoch, and so knows which of the things in its memory may hold no more.
Without them it would have to read all of its memory again for each move, and one tenant that revokes its own keys
without a pause would slow down issuing for everybody. The triggers write them, in the transaction of the change as
ever. Kept are those of the last thousand epochs; a process that is further behind reads everything again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_MOVE = "UPDATE configuration SET epoch = epoch + 1 WHERE id = 1"
_NOTE = "INSERT INTO epoch_changes (epoch, row_id) SELECT epoch, OLD.id FROM configuration WHERE true ON CONFLICT DO NOTHING"
_FORGET = "DELETE FROM epoch_changes WHERE epoch < (SELECT epoch - 1000 FROM configuration)"


def upgrade() -> None:
    op.create_table(
        "epoch_changes",
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("row_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "row_id", name="pk_epoch_changes"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_FUNCTION.format(_TELL))
    else:
        _rewrite(f"{_MOVE};", f"{_MOVE}; {_NOTE}; {_FORGET};")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_FUNCTION.format(""))
    else:
        _rewrite(f"{_MOVE}; {_NOTE}; {_FORGET};", f"{_MOVE};")
    op.drop_table("epoch_changes")


def _rewrite(old: str, new: str) -> None:
    """SQLite can't change a trigger: make those that move the epoch again, with other words in them."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%_moves_epoch'"
    for name, sql in op.get_bind().execute(sa.text(query)).all():
        op.execute(f"DROP TRIGGER {name}")
        op.execute(sa.text(sql.replace(old, new)))


# TRUNCATE takes from every row and names none, so it moves by two: of one of them nobody will ever know what for.
_TELL = f"""
    IF FOUND THEN
        {_FORGET};
    END IF;
    IF TG_LEVEL = 'ROW' THEN
        {_NOTE};
    ELSE
        UPDATE configuration SET epoch = epoch + 2 WHERE id = 1;
    END IF;
"""  # noqa: S608  nothing in it is anybody's
# xmin is the transaction that wrote the row as it is now: our own, once the first changed row has moved it.
_FUNCTION = f"""
CREATE OR REPLACE FUNCTION deputy_move_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {_MOVE} AND xmin <> pg_current_xact_id()::xid;
    {{}}
    RETURN NULL;
END $$
"""
