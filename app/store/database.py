"""The database: engine, transactions and column types.

Two ways in: `Database.read()` for a look, `Database.write(caller)` for one short transaction; app/audit/batch.py, which
issuing goes through, holds a connection of its own. On SQLite every writing transaction begins IMMEDIATE (one that
reads first and writes later fails at once when another process wrote in between, whatever the timeout) and waits
its turn at one file lock, off the gevent hub. No network call may happen inside either (the tests refuse it).
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from sqlalchemy import DateTime, Dialect, Engine, create_engine, event, func, select
from sqlalchemy.engine import Connection as DbConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from app.errors import ConflictError, StoreUnavailableError
from app.store.sqlite import PRAGMAS, OneWriter, SqliteConnection, create_private

_UNREACHABLE = "The database can't be reached right now; try again."
_COLLISIONS = {"40001", "40P01"}  # PostgreSQL's serialization_failure and deadlock_detected
_COLLIDED = "Another request changed the same things at the same time; try again."
# A commit that PostgreSQL answers before it is on its disk is none: not ours to give up, whoever configured it.
_POSTGRESQL_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
# Seconds. The feed of audit events shows what is older than both together, so a transaction may not take longer than
# LONGEST, nor may an event be older than that when it is stored.
LONGEST = 15
CLOCKS_APART = 5  # by how much the clocks of machines may differ
# At once, on SQLite. Each keeps a thread and a connection, and those who write need some as well.
_LONG_LOOKS = 4
_STATEMENT_SECONDS = 10  # for one that waits for a lock, or looks through too much
# Seconds until a database that doesn't answer counts as away. Workers behind container credentials wait for two.
_POSTGRESQL_WAITS = {"connect_timeout": 2, "tcp_user_timeout": 2000}


def database_now(db: Session) -> datetime:
    """The database's clock, which is the same for all processes. SQLite's is the machine's."""
    if db.get_bind().dialect.name == "sqlite":
        text = db.scalars(select(func.strftime("%Y-%m-%dT%H:%M:%f+00:00", "now"))).one()
        return datetime.fromisoformat(text)
    return db.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True)))).one()


def as_json(value: Any) -> str:
    """How JSON columns are written, on every database and by whoever writes them."""
    return orjson.dumps(value).decode()


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on every database: SQLite forgets the zone, and PostgreSQL answers in the session's."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return value
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Writer(Protocol):
    """On whose behalf a transaction writes: an API key, an onboarding link, or Deputy itself."""

    def admit(self, db: Session) -> None:
        """Read again, in the transaction at hand, that they may still act. Raises an AppError when they may not."""


class _System:
    def admit(self, db: Session) -> None:
        """Nothing to read: there is no key that could have been revoked."""


SYSTEM = _System()  # the background worker, stacks' messages, housekeeping, and the operator at the machine


class Database:
    """The engine and its two kinds of transactions. Cheap to make; it connects when first used."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        sqlite = self.engine.dialect.name == "sqlite"
        turns = threading.BoundedSemaphore(_LONG_LOOKS) if sqlite else nullcontext()
        self._long_looks: AbstractContextManager[Any] = turns
        self._looking = self.engine.execution_options(deputy_takes_long=True)
        self._writing = self.engine.execution_options(deputy_writes=True)

    @contextmanager
    def read(self, *, long: bool = False) -> Iterator[Session]:
        """A session for looking; whatever it changes is rolled back. Raises StoreUnavailableError.

        `long`: it may look through so much that on SQLite a worker's other requests would wait for it.
        """
        engine, turn = (self._looking, self._long_looks) if long else (self.engine, nullcontext())
        with turn, unavailable(), Session(engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, writer: Writer) -> Iterator[Session]:
        """One transaction: commits at the end, rolls back on any exception.

        `writer` is read again first. A key may have been revoked since its request began, which lasts as long as its
        body takes to arrive; no use case can forget to look. Raises what `writer.admit` raises, ConflictError when
        PostgreSQL broke up a deadlock, and StoreUnavailableError.
        """
        with unavailable(), Session(self._writing, expire_on_commit=False) as session, session.begin():
            session.connection()  # it begins here, on SQLite when its turn has come
            began = time.monotonic()
            writer.admit(session)
            yield session
            # PostgreSQL before 17 and SQLite have no limit of their own for a whole transaction.
            if time.monotonic() - began > LONGEST:
                raise StoreUnavailableError(_UNREACHABLE)

    def dedicated(self) -> Any:
        """A connection of the driver's own that the pool forgets. Raises StoreUnavailableError."""
        with unavailable():
            fairy = self.engine.raw_connection()
            connection = fairy.driver_connection
            fairy.detach()
            return connection


@contextmanager
def unavailable() -> Iterator[None]:
    """A database that is away, full or locked is a 503; a violated constraint is not, and passes."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        if getattr(error.orig if isinstance(error, DBAPIError) else None, "sqlstate", None) in _COLLISIONS:
            raise ConflictError(_COLLIDED) from error  # rolled back; the other one went on
        raise StoreUnavailableError(_UNREACHABLE) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreUnavailableError(_UNREACHABLE) from error
        raise


def postgresql_limits(server_version: int) -> dict[str, float]:
    """PostgreSQL's settings, in seconds, that let no statement and no transaction take too long."""
    whole = "transaction_timeout" if server_version >= 170000 else "idle_in_transaction_session_timeout"
    return {"statement_timeout": min(_STATEMENT_SECONDS, LONGEST), whole: LONGEST}


def without_limits(connection: DbConnection) -> None:
    """For migrations, which take as long as they take. The connection is closed when it is given back."""
    if connection.dialect.name == "postgresql":
        connection.detach()
        version = connection.connection.dbapi_connection.info.server_version  # type: ignore[union-attr]
        for name in postgresql_limits(version):
            connection.exec_driver_sql(f"SET {name} = 0")
        connection.commit()


def _engine(url: str) -> Engine:
    if url.startswith("sqlite"):
        return _sqlite(url)
    engine = create_engine(
        url,
        pool_size=16,
        max_overflow=16,
        pool_timeout=1.5,
        pool_pre_ping=True,
        json_serializer=as_json,
        connect_args=_POSTGRESQL_WAITS,
    )

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        dbapi.execute(_POSTGRESQL_DURABLE)
        for name, seconds in postgresql_limits(dbapi.info.server_version).items():
            dbapi.execute("SELECT set_config(%s, %s, false)", (name, f"{int(seconds * 1000)}ms"))
        dbapi.commit()

    return engine


def _sqlite(url: str) -> Engine:
    engine = create_engine(
        url, connect_args={"check_same_thread": False, "factory": SqliteConnection}, json_serializer=as_json
    )
    path = engine.url.database
    turn = OneWriter(path) if path else None

    @event.listens_for(engine, "do_connect")
    def _create(*_: Any) -> None:
        if path and path != ":memory:":
            create_private(path)

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        dbapi.turn = turn
        dbapi.isolation_level = None  # SQLAlchemy's BEGIN is ours to write, below
        for pragma in PRAGMAS:
            dbapi.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(connection: DbConnection) -> None:
        options = connection.get_execution_options()
        connection.connection.dbapi_connection.takes_long = options.get("deputy_takes_long", False)  # type: ignore[union-attr]  # there is one by now
        if not options.get("deputy_writes", False):
            connection.exec_driver_sql("BEGIN")
            return
        try:
            connection.connection.dbapi_connection.begin_writing()  # type: ignore[union-attr]  # there is one by now
        except sqlite3.OperationalError as error:
            raise OperationalError("BEGIN IMMEDIATE", None, error) from error

    return engine
