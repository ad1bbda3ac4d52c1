"""Migrations with Alembic. app/store/revisions.py works without it."""

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
    """Run all migrations, and retry them while a table is locked, as a backup locks it.

    Requests wait behind a migration that waits for a lock. Calls `report_wait` once before the
    second attempt. Raises TableInUseError.
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
