"""Alembic's configuration. app/store/revisions.py works without Alembic."""

from alembic.config import Config as AlembicConfig

from app.store.database import Database
from app.store.revisions import MIGRATIONS


def alembic_config(db: Database) -> AlembicConfig:
    """Return Alembic's configuration for this database."""
    config = AlembicConfig(str(MIGRATIONS.with_name("alembic.ini")))
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = db.engine
    return config
