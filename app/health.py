"""Readiness: whether this process can do its work, and if not, what is missing."""

import threading
from pathlib import Path

from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from cachetools import TTLCache, cached

from app.aws.sts import Sts, StsError
from app.db import Database
from app.errors import StoreUnavailableError

_ROOT = Path(__file__).parent.parent
_IDENTITY_SECONDS = (
    5  # readiness is public: asking AWS at every request would let anybody use up our STS rate
)

_AWS_SILENT = "AWS does not answer, or knows no credentials of ours."


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


class Health:
    """Checks the database, its migrations, and who we are to AWS."""

    def __init__(self, db: Database, sts: Sts) -> None:
        self._db = db
        self._sts = sts
        self._migrations = ScriptDirectory.from_config(alembic_config(db))
        self._head = self._migrations.get_current_head()
        self._identity = cached(TTLCache(maxsize=1, ttl=_IDENTITY_SECONDS), lock=threading.Lock())(
            lambda: _identity_problem(sts)
        )

    def missing(self) -> dict[str, list[str]]:
        """What is missing, by what it is missing for; empty when ready."""
        found = {"database": self._database_problem(), "aws": self._aws_problem()}
        return {name: [problem] for name, problem in found.items() if problem}

    def _aws_problem(self) -> str | None:
        # What was said some seconds ago does not count while AWS is silent; and as nobody sends requests to a process
        # that is not ready, it is readiness that finds out when AWS is back. The breaker lets few calls through.
        return _identity_problem(self._sts) if self._sts.is_silent else self._identity()

    def _database_problem(self) -> str | None:
        try:
            at = revision(self._db)
        except StoreUnavailableError as error:
            return error.detail
        if at != self._head:
            if is_newer(at, self._migrations):
                return (
                    "The database's schema is a newer release's; replace this process by one of that release."
                )
            return "The database's schema is not this release's; run: flask --app wsgi migrate"
        return None


def _identity_problem(sts: Sts) -> str | None:
    try:
        if sts.is_broker():
            return None
    except StsError:
        return _AWS_SILENT
    return "Our AWS credentials are not those of BROKER_PRINCIPAL_ARN."
