"""The version of the database's schema, and its migrations with Alembic.

Only `flask migrate` uses Alembic, which is imported lazily: it would take 10 % of every process's
start-up time.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.exc import OperationalError

from app.store.database import Database, sqlstate

_MIGRATIONS = Path(__file__).parents[2] / "migrations"  # the folder beside the package `app`
# The versions that this release has migrations for, oldest first
KNOWN = sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))
_ATTEMPTS = 180  # about one per second
_IN_USE = "55P03"  # PostgreSQL's lock_not_available


class UnfitDatabaseError(Exception):
    """Raised for a database that this release can't use."""


class TableInUseError(Exception):
    """A table stayed locked during all attempts."""


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
    """Raise UnfitDatabaseError for a newer schema, or a new database that lacks characters.

    `version`: the database's revision. Raises StoreUnavailableError.
    """
    if version is None and database.engine.dialect.name == "postgresql":
        with database.read() as db:
            encoding = db.scalar(sqlalchemy.text("SHOW server_encoding"))
        if encoding not in {"UTF8", "SQL_ASCII"}:
            raise UnfitDatabaseError(
                f"The database's encoding, {encoding}, lacks characters that names may have. Create"
                " the database with ENCODING 'UTF8' TEMPLATE template0."
            )
    if version not in {None, *KNOWN}:
        raise UnfitDatabaseError(
            f"The database's schema, {version}, belongs to a newer release. Run that release."
        )


def alembic_config(database: Database) -> Any:
    """Return Alembic's configuration for this database."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config(str(_MIGRATIONS.with_name("alembic.ini")))
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["engine"] = database.engine
    return config


def upgrade(database: Database, report_wait: Callable[[], None]) -> None:
    """Run all migrations. Retry while a table is locked, for example by a backup.

    Each attempt waits only briefly for the lock, because requests wait behind it. Calls
    `report_wait` once, before the second attempt. Raises TableInUseError after the last attempt.
    """
    from alembic import command  # noqa: PLC0415

    for attempt in range(_ATTEMPTS):
        try:
            command.upgrade(alembic_config(database), "head")
        except OperationalError as error:
            if sqlstate(error) != _IN_USE:
                raise
        else:
            return
        if not attempt:
            report_wait()
        time.sleep(1)
    raise TableInUseError
