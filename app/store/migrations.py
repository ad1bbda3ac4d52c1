"""The version of the database's schema, and its migrations with Alembic.

Only `flask migrate` uses Alembic, which is imported lazily: it would take 10 % of every process's
start-up time.
"""

from pathlib import Path
from typing import Any

import sqlalchemy

from app.store.database import Database

_MIGRATIONS = Path(__file__).parents[2] / "migrations"  # the folder beside the package `app`
# The revision of this release's schema
REVISION = max(path.name for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


class UnfitDatabaseError(Exception):
    """Raised for a database that this release can't use."""


def revision(database: Database) -> str | None:
    """Return the database's revision; None before the first migration.

    Raises StoreUnavailableError.
    """
    with database.read() as db:
        if not sqlalchemy.inspect(db.connection()).has_table("alembic_version"):
            return None
        query = sqlalchemy.text("SELECT version_num FROM alembic_version")
        version: str | None = db.scalar(query)
        return version


def ensure_fit(database: Database, version: str | None) -> None:
    """Raise UnfitDatabaseError for another schema, or a new database that lacks characters.

    `version`: the database's revision. Raises StoreUnavailableError.
    """
    if version is None:
        with database.read() as db:
            encoding = db.scalar(sqlalchemy.text("SHOW server_encoding"))
        if encoding not in {"UTF8", "SQL_ASCII"}:
            raise UnfitDatabaseError(
                f"The database's encoding, {encoding}, lacks characters that names may have. Create"
                " the database with ENCODING 'UTF8' TEMPLATE template0."
            )
    if version not in {None, REVISION}:
        raise UnfitDatabaseError(
            f"The database's schema, {version}, belongs to another release, and before 1.0 there is"
            " no upgrade. Run that release, or begin with an empty database."
        )


def alembic_config(database: Database) -> Any:
    """Return Alembic's configuration for this database."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config(str(_MIGRATIONS.with_name("alembic.ini")))
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["engine"] = database.engine
    return config


def upgrade(database: Database) -> None:
    """Make the schema in an empty database, in one transaction. Safe to repeat."""
    from alembic import command  # noqa: PLC0415

    command.upgrade(alembic_config(database), "head")
