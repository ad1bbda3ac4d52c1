"""Read a connection's newest proofs and approvals without sorting all of them."""

from alembic import op

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

    An attempt that was interrupted leaves an invalid index, so the new one is dropped first.
    """
    options = {"postgresql_concurrently": True}
    with op.get_context().autocommit_block():
        op.drop_index(new, table, if_exists=True, **options)
        op.create_index(new, table, ["connection_id", *more], unique=False, **options)
        op.drop_index(old, table, if_exists=True, **options)
