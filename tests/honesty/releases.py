"""Copies of this checkout, and a later release of the service."""

import shutil

from app.store.migrations import KNOWN
from dev.stack import ROOT

_PARTS = (
    "app",
    "cloudformation",
    "migrations",
    "alembic.ini",
    "celery_app.py",
    "gunicorn.conf.py",
    "wsgi.py",
)
NEXT = "9999"
# What a release may do to tables that the release before it still works on.
_EXPANDS = f'''"""Every table is expanded in each way that is allowed."""

import sqlalchemy as sa
from alembic import op

revision = "{NEXT}"
down_revision = "{KNOWN[-1]}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in sorted(sa.inspect(op.get_bind()).get_table_names()):
        if table == "alembic_version" or table.startswith("audit_events_"):  # or a partition
            continue
        op.add_column(table, sa.Column("expanded", sa.String(8)))
        default = {{"nullable": False, "server_default": "new"}}
        op.add_column(table, sa.Column("expanded_and_filled", sa.String(8), **default))
    key = sa.Column("id", sa.Uuid(), nullable=False)
    op.create_table("expanded", key, sa.PrimaryKeyConstraint("id"))


def downgrade() -> None:
    raise NotImplementedError
'''


def same(folder):
    """This checkout, in `folder`."""
    folder.mkdir()
    for part in _PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)  # type: ignore[operator]
    return folder


def after(folder):
    """This checkout with one migration more, in `folder`."""
    same(folder)
    (folder / "migrations" / "versions" / f"{NEXT}_next.py").write_text(_EXPANDS)
    return folder
