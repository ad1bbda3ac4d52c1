"""Databases of one's own. A run migrates one template; what is migrated is a copy of it.

The run's PostgreSQL is started by the first process that needs it, so that tests which need none
don't wait for one. The processes of a run find it in the run's folder.
"""

import fcntl
import os
import pickle
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command

from app.store.database import Database
from app.store.migrations import alembic_config
from dev.postgres import Postgres

_RUN = "DEPUTY_TESTS_RUN"  # the run's folder, in the environment that its processes inherit
# Each database is 600 files, and writing them to a disk proves nothing to a test.
_MEMORY = Path("/dev/shm")  # noqa: S108
_ROOM = 1 << 30
NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/deputy"  # nothing listens there


def begin_run() -> bool:
    """Whether this process began it, and so ends it: an xdist worker, and a mutant's tests, are
    in a run already.
    """
    if _RUN in os.environ:
        return False
    fits = (
        _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
    )
    os.environ[_RUN] = tempfile.mkdtemp(prefix="deputy-tests-", dir=_MEMORY if fits else None)
    return True


def end_run() -> None:
    """Stop and delete what the run's processes shared."""
    if (_run() / "template").exists():
        _admin(f"DROP DATABASE {_template()} WITH (FORCE)")
    if (_run() / "server").exists():
        pickle.loads((_run() / "server").read_bytes()).stop()  # noqa: S301  _start wrote it
    shutil.rmtree(_run())
    del os.environ[_RUN]


def postgresql(database: str | None = None) -> str:
    """The URL of a database on the tests' server; of the server's own when none is named."""
    url = sqlalchemy.make_url(os.environ.get("TEST_DATABASE_URL") or _server())
    return url.set(database=database or url.database).render_as_string(hide_password=False)


@contextmanager
def empty_database(options: str = "") -> Iterator[str]:
    """A database without tables, made with these options of CREATE DATABASE; gone at the end.

    Yields its URL.
    """
    name = f"deputy_test_{uuid.uuid4().hex}"
    _admin(f"CREATE DATABASE {name} {options}")
    try:
        yield postgresql(name)
    finally:
        _admin(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def new_database() -> Iterator[str]:
    """A new deployment's database, migrated; gone at the end. Yields its URL."""
    _once("template", _migrate_template)
    with empty_database(f"TEMPLATE {_template()}") as url:
        # A copy of a database is the same deployment, until it gets another id
        _execute(url, "UPDATE configuration SET deployment_id = gen_random_uuid()")
        yield url


def migrate(url: str) -> None:
    """What `flask migrate` does."""
    database = Database(url)
    command.upgrade(alembic_config(database), "head")
    database.engine.dispose()


def _run() -> Path:
    return Path(os.environ[_RUN])


def _template() -> str:
    return f"deputy_template_{_run().name.rpartition('-')[2]}"


def _once(name: str, make: Callable[[Path], object]) -> Path:
    """A file in the run's folder, which the first process that wants it makes."""
    path = _run() / name
    with (_run() / f"{name}.turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path


@cache
def _server() -> str:
    return pickle.loads(_once("server", _start).read_bytes()).url()  # type: ignore[no-any-return]  # noqa: S301  _start wrote it


def _start(path: Path) -> None:
    in_memory = _run().parent == _MEMORY
    path.write_bytes(pickle.dumps(Postgres(_MEMORY if in_memory else None).__enter__()))


def _migrate_template(path: Path) -> None:
    _admin(f"CREATE DATABASE {_template()}")
    migrate(postgresql(_template()))
    path.touch()


def _admin(statement: str) -> None:
    _execute(postgresql(), statement)


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute(statement)
