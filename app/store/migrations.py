"""Migrations with Alembic. app/store/revisions.py reads the schema's version without Alembic."""

import time
from collections.abc import Callable

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy.exc import OperationalError

from app.store.database import Database, sqlstate
from app.store.revisions import MIGRATIONS

_ATTEMPTS = 180  # about one per second
_IN_USE = "55P03"  # PostgreSQL's lock_not_available


class TableInUseError(Exception):
    """A table stayed locked during all attempts."""


def alembic_config(db: Database) -> AlembicConfig:
    """Return Alembic's configuration for this database."""
    config = AlembicConfig(str(MIGRATIONS.with_name("alembic.ini")))
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = db.engine
    return config


def upgrade(db: Database, report_wait: Callable[[], None]) -> None:
    """Run all migrations. Retry while a table is locked, for example by a backup.

    Each attempt waits only briefly for the lock, because requests wait behind it. Calls
    `report_wait` once, before the second attempt. Raises TableInUseError after the last attempt.
    """
    for attempt in range(_ATTEMPTS):
        try:
            command.upgrade(alembic_config(db), "head")
        except OperationalError as error:
            if sqlstate(error) != _IN_USE:
                raise
        else:
            return
        if not attempt:
            report_wait()
        time.sleep(1)
    raise TableInUseError
