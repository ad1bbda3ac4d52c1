"""The epoch moves for a key only when something is taken from it: names, makers and successors take nothing.

One replacement changed the maker of hundreds of keys, and on SQLite each of them moved the epoch.
"""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

_NAME = "api_keys_update_moves_epoch"
# What a process keeps in memory of a key and decides by.
_DECISIVE = ("id", "lookup", "digest", "scope_bits", "tenant_id", "permission_sets", "expires_at", "revoked_at")


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    _replace(" OR ".join(_is_changed(column, postgresql=postgresql) for column in _DECISIVE))


def downgrade() -> None:
    _replace(None)


def _is_changed(column: str, *, postgresql: bool) -> str:
    if not postgresql:
        return f"OLD.{column} IS NOT NEW.{column}"
    text = "::text" if column == "permission_sets" else ""  # PostgreSQL can't compare JSON
    return f"OLD.{column}{text} IS DISTINCT FROM NEW.{column}{text}"


def _replace(condition: str | None) -> None:
    when = f" WHEN ({condition})" if condition else ""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"DROP TRIGGER {_NAME} ON api_keys")
        op.execute(
            f"CREATE CONSTRAINT TRIGGER {_NAME} AFTER UPDATE ON api_keys DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW{when} EXECUTE FUNCTION deputy_move_epoch()"
        )
        return
    query = sa.text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name")
    earlier = op.get_bind().execute(query, {"name": _NAME}).scalar_one()
    op.execute(f"DROP TRIGGER {_NAME}")
    op.execute(sa.text(f"CREATE TRIGGER {_NAME} AFTER UPDATE ON api_keys{when} {earlier[earlier.index('BEGIN') :]}"))
