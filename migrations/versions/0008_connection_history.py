"""Read a connection's newest proofs and approvals without sorting all of them."""

from alembic import op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("proofs", "approvals")


def upgrade() -> None:
    for table in _TABLES:
        _replace(table, f"ix_{table}_connection_id", f"ix_{table}_of_connection", "id")


def downgrade() -> None:
    for table in _TABLES:
        _replace(table, f"ix_{table}_of_connection", f"ix_{table}_connection_id")


def _replace(table: str, old: str, new: str, *more: str) -> None:
    """Replace an index without a lock that proofs wait for: in one transaction they deadlock.

    An attempt that was interrupted leaves an invalid index, which is made anew. A valid one stays,
    because the old index may be invalid by then.
    """
    options = {"postgresql_concurrently": True}
    with op.get_context().autocommit_block():
        if not _is_valid(new):
            op.drop_index(new, table, if_exists=True, **options)
            op.create_index(new, table, ["connection_id", *more], unique=False, **options)
        op.drop_index(old, table, if_exists=True, **options)


def _is_valid(index: str) -> bool:
    if op.get_bind().dialect.name != "postgresql":
        return False
    valid = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:index)")
    return bool(op.get_bind().scalar(valid, {"index": index}))
