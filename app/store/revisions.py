"""The version of the database's schema, and the versions that this release has migrations for.

Only `flask migrate` uses Alembic. Importing it here would take 10 % of every process's start-up
time.
"""

from pathlib import Path

import sqlalchemy

from app.store.database import Database

MIGRATIONS = Path(__file__).parents[2] / "migrations"  # the folder beside the package `app`
# Oldest first
KNOWN = sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def revision(db: Database) -> str | None:
    """Return the database's revision; None before the first migration.

    Raises StoreUnavailableError.
    """
    with db.read() as session:
        if not sqlalchemy.inspect(session.connection()).has_table("alembic_version"):
            return None
        query = sqlalchemy.text("SELECT version_num FROM alembic_version")
        version: str | None = session.scalar(query)
        return version
