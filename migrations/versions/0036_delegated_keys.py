"""The scopes that a key with keys:delegate may give, and the key that made a tenant.

Another `may_give` of a key moves the epoch, as its other rights do. Tenants from before have no maker.
"""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

_NAME = "api_keys_update_moves_epoch"
# What a process keeps in memory of a key and decides by.
_DECISIVE = ("id", "lookup", "digest", "scope_bits", "tenant_id", "permission_sets", "expires_at", "revoked_at")


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("may_give_bits", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("tenants", sa.Column("made_by", sa.Uuid(), nullable=True))
    op.create_index("ix_tenants_made_by", "tenants", ["made_by", "created_at"])
    _move_epoch_for(*_DECISIVE, "may_give_bits")


def downgrade() -> None:
    _move_epoch_for(*_DECISIVE)
    op.drop_index("ix_tenants_made_by", table_name="tenants")
    op.drop_column("tenants", "made_by")
    op.drop_column("api_keys", "may_give_bits")


def _move_epoch_for(*columns: str) -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    condition = " OR ".join(_is_changed(column, postgresql=postgresql) for column in columns)
    if postgresql:
        op.execute(f"DROP TRIGGER {_NAME} ON api_keys")
        op.execute(
            f"CREATE CONSTRAINT TRIGGER {_NAME} AFTER UPDATE ON api_keys DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION deputy_move_epoch()"
        )
        return
    query = sa.text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name")
    earlier = op.get_bind().execute(query, {"name": _NAME}).scalar_one()
    body = earlier[earlier.index("BEGIN") :]
    op.execute(f"DROP TRIGGER {_NAME}")
    op.execute(sa.text(f"CREATE TRIGGER {_NAME} AFTER UPDATE ON api_keys WHEN ({condition}) {body}"))


def _is_changed(column: str, *, postgresql: bool) -> str:
    if not postgresql:
        return f"OLD.{column} IS NOT NEW.{column}"
    text = "::text" if column == "permission_sets" else ""  # PostgreSQL can't compare JSON
    return f"OLD.{column}{text} IS DISTINCT FROM NEW.{column}{text}"
