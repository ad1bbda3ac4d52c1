"""Databases of one's own. A run migrates one template for each engine; what is migrated is a copy
of it.

The run's PostgreSQL is started by the first process that needs it, so that tests which need none
don't wait for one. The processes of a run find it, and the templates, in the run's folder.
"""

import fcntl
import os
import pickle
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command

from app.store.database import Database
from app.store.migrations import alembic_config
from dev.postgres import Postgres

_RUN = "DEPUTY_TESTS_RUN"  # the run's folder, in the environment that its processes inherit
# SQLite waits for the disk at each commit, and each PostgreSQL database is 600 files: both prove
# nothing to a test.
_MEMORY = Path("/dev/shm")  # noqa: S108
_ROOM = 1 << 30


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
def empty_database(engine: str, folder: Path, options: str = "") -> Iterator[str]:
    """A database without tables, gone at the end: a SQLite file, or one made on the PostgreSQL
    server, with these options of CREATE DATABASE. Yields its URL.
    """
    if engine == "sqlite":
        yield f"sqlite:///{folder / uuid.uuid4().hex}.sqlite3"
    else:
        with _on_the_server(options) as url:
            yield url


@contextmanager
def new_database(engine: str) -> Iterator[str]:
    """A new deployment's database, migrated; gone at the end. Yields its URL."""
    if engine == "sqlite":
        with tempfile.TemporaryDirectory(dir=_run()) as folder:
            copy = shutil.copy(_once("template.sqlite3", _migrate_file), folder)
            yield _of_its_own(f"sqlite:///{copy}")
    else:
        _once("template", _migrate_template)
        with _on_the_server(f"TEMPLATE {_template()}") as url:
            yield _of_its_own(url)


def migrate(url: str) -> None:
    """What `flask migrate` does."""
    database = Database(url)
    command.upgrade(alembic_config(database), "head")
    database.engine.dispose()


@contextmanager
def _on_the_server(options: str = "") -> Iterator[str]:
    name = f"deputy_test_{uuid.uuid4().hex}"
    _admin(f"CREATE DATABASE {name} {options}")
    try:
        yield postgresql(name)
    finally:
        _admin(f"DROP DATABASE {name} WITH (FORCE)")


def _of_its_own(url: str) -> str:
    """A copy of a database is the same deployment, until it gets another id."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(
                "UPDATE configuration SET deployment_id = lower(hex(randomblob(16)))"
            )
    else:
        _execute(url, "UPDATE configuration SET deployment_id = gen_random_uuid()")
    return url


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


def _migrate_file(path: Path) -> None:
    migrate(f"sqlite:///{path}.new")
    Path(f"{path}.new").rename(path)


def _migrate_template(path: Path) -> None:
    _admin(f"CREATE DATABASE {_template()}")
    migrate(postgresql(_template()))
    path.touch()


def _admin(statement: str) -> None:
    _execute(postgresql(), statement)


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute(statement)
