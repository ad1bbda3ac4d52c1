"""The schema's version: where the database's is, and which migrations this release knows."""

from pathlib import Path

from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.store.database import Database

_ROOT = Path(__file__).parent.parent.parent


def alembic_config(db: Database) -> AlembicConfig:
    """Alembic's configuration for this database; the migrations lie beside the package."""
    config = AlembicConfig(str(_ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(_ROOT / "migrations"))
    config.attributes["engine"] = db.engine
    return config


def revision(db: Database) -> str | None:
    """Where the database's schema is; None before the first migration. Raises StoreUnavailableError."""
    with db.read() as session:
        return MigrationContext.configure(session.connection()).get_current_revision()


def is_newer(at: str | None, migrations: ScriptDirectory) -> bool:
    """Whether a database is at a revision that this release does not know."""
    return at is not None and at not in {known.revision for known in migrations.walk_revisions()}
