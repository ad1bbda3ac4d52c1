"""Tenants are found by what their name begins with, and by their status."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_AT_ONCE = 1000


def upgrade() -> None:
    kind = sa.String(length=200, collation="C").with_variant(sa.String(length=200), "sqlite")
    op.add_column("tenants", sa.Column("name_folded", kind, server_default=sa.text("''"), nullable=False))
    _fold()
    op.create_index("ix_tenants_name_folded", "tenants", ["name_folded", "id"])
    op.create_index("ix_tenants_status", "tenants", ["status", "id"])


def downgrade() -> None:
    op.drop_index("ix_tenants_status", table_name="tenants")
    op.drop_index("ix_tenants_name_folded", table_name="tenants")
    op.drop_column("tenants", "name_folded")


def _fold() -> None:
    tenants = sa.table("tenants", sa.column("id", sa.Uuid()), sa.column("name"), sa.column("name_folded"))
    db = op.get_bind()
    folds = sa.update(tenants).where(tenants.c.id == sa.bindparam("which"))
    folds = folds.values(name_folded=sa.bindparam("folded"))
    rows = db.execute(sa.select(tenants.c.id, tenants.c.name)).all()
    for first in range(0, len(rows), _AT_ONCE):
        some = [{"which": row.id, "folded": _folded(row.name)} for row in rows[first : first + _AT_ONCE]]
        db.execute(folds, some)


def _folded(name: str) -> str:
    once = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", once)[:200]
