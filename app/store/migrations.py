"""Alembic's configuration; app/store/revisions.py is what does without it."""

from alembic.config import Config as AlembicConfig

from app.store.database import Database
from app.store.revisions import MIGRATIONS


def alembic_config(db: Database) -> AlembicConfig:
    """For this database."""
    config = AlembicConfig(str(MIGRATIONS.with_name("alembic.ini")))
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = db.engine
    return config
