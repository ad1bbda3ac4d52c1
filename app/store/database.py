"""The database: engine, transactions and column types.

`Database.read()` opens a session for queries, `Database.write(caller)` one short transaction. For
issuing, app/audit/insert.py has a connection of its own. On SQLite every writing transaction begins
IMMEDIATE, because one that reads first and writes later fails at once when another process has
written in between. It waits for a file lock, off the gevent hub. No transaction may contain a
network call; the tests refuse one.
"""

import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import orjson
from sqlalchemy import (
    Connection,
    DateTime,
    Dialect,
    Engine,
    QueuePool,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    TimeoutError as PoolTimeoutError,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from app import metrics
from app.errors import ConflictError, StoreUnavailableError
from app.store.sqlite import PRAGMAS, SqliteConnection, WriteLock, create_private

_UNREACHABLE = "The database can't be reached right now; try again."
# PostgreSQL's serialization_failure, deadlock_detected and lock_not_available
_COLLISIONS = {"40001", "40P01", "55P03"}
_COLLIDED = "Another request changed the same things at the same time; try again."
_TRIES = 4  # of a change that stops something
# An asynchronous commit is not durable, so synchronous_commit is always on.
_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE"
    " current_setting('synchronous_commit') = 'off'"
)
# Seconds. The feed shows audit events that are older than both together. So no transaction takes
# longer than LONGEST, and no event is older than that when it is stored.
LONGEST = 15
CLOCKS_APART = 5  # the most by which machines' clocks may differ
# Long reads at once, on SQLite: each occupies a thread and a connection, and writers need some too.
_LONG_READS = 4
_STATEMENT_SECONDS = 10  # for a statement that waits for a lock, or reads too many rows
# Seconds until a database that does not answer counts as away. For container credentials, SDKs wait
# two seconds.
_POSTGRESQL_WAITS = {"connect_timeout": 2, "tcp_user_timeout": 2000}


def database_now(db: Session) -> datetime:
    """The database's clock, which is the same for all processes. SQLite's is the machine's."""
    if db.get_bind().dialect.name == "sqlite":
        text = db.scalars(select(func.strftime("%Y-%m-%dT%H:%M:%f+00:00", "now"))).one()
        return datetime.fromisoformat(text)
    return db.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True)))).one()


def as_json(value: Any) -> str:
    """The text of a JSON column, the same on every database."""
    return orjson.dumps(value).decode()


_JSON: Any = {"json_serializer": as_json, "json_deserializer": orjson.loads}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on every database: SQLite drops the zone, and PostgreSQL answers in
    the session's.
    """

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


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def until_committed(stop: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Repeat a use case that stops something when it collided with another: nobody should have
    to ask for it twice.
    """

    @functools.wraps(stop)
    def repeat(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        for _ in range(_TRIES - 1):
            try:
                return stop(*args, **kwargs)
            except ConflictError as error:
                if not isinstance(error.__cause__, OperationalError):
                    raise
        return stop(*args, **kwargs)

    return repeat


class Writer(Protocol):
    """On whose behalf a transaction writes: an API key, an onboarding link, or Deputy itself."""

    def admit(self, db: Session) -> None:
        """Check again, in this transaction, that the writer may still act. Raises an AppError if
        it may not.
        """


class _System:
    def admit(self, db: Session) -> None:
        """There is no key that could have been revoked."""


SYSTEM = (
    _System()
)  # the background worker, stacks' messages, housekeeping, and the operator at the machine


class Database:
    """The engine and its two kinds of transactions. Cheap to make; it connects when first used."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        sqlite = self.engine.dialect.name == "sqlite"
        turns = threading.BoundedSemaphore(_LONG_READS) if sqlite else nullcontext()
        self._long_reads: AbstractContextManager[Any] = turns
        self._long_reading = self.engine.execution_options(deputy_takes_long=True)
        self._writing = self.engine.execution_options(deputy_writes=True)

    @contextmanager
    def read(self, *, long: bool = False) -> Iterator[Session]:
        """A session for queries; its changes are rolled back. Raises StoreUnavailableError.

        `long`: it may read so many rows that on SQLite the process's other requests would wait for
        it.
        """
        engine, turn = (
            (self._long_reading, self._long_reads) if long else (self.engine, nullcontext())
        )
        with turn, store_errors(), Session(engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, writer: Writer) -> Iterator[Session]:
        """One transaction: commits at the end, rolls back on any exception.

        `writer` is checked again first: its key may have been revoked while the request's body
        arrived. Raises what `writer.admit` raises, ConflictError when PostgreSQL broke up a
        deadlock, and StoreUnavailableError.
        """
        with (
            store_errors(),
            Session(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            session.connection()  # begins the transaction, on SQLite once the write lock is free
            began = time.monotonic()
            writer.admit(session)
            yield session
            # PostgreSQL before 17 and SQLite have no limit of their own for a whole transaction.
            if time.monotonic() - began > LONGEST:
                raise StoreUnavailableError(_UNREACHABLE)

    def dedicated(self) -> Any:
        """A connection of the driver that no longer belongs to the pool. Raises
        StoreUnavailableError.
        """
        with store_errors():
            fairy = self.engine.raw_connection()
            connection = fairy.driver_connection
            fairy.detach()
            return connection


@contextmanager
def store_errors() -> Iterator[None]:
    """Raises StoreUnavailableError when the database is away, full or locked. Violated
    constraints pass.
    """
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        if (
            getattr(error.orig if isinstance(error, DBAPIError) else None, "sqlstate", None)
            in _COLLISIONS
        ):
            raise ConflictError(_COLLIDED) from error  # rolled back; the other transaction went on
        raise StoreUnavailableError(_UNREACHABLE) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreUnavailableError(_UNREACHABLE) from error
        raise


def postgresql_limits(server_version: int) -> dict[str, float]:
    """PostgreSQL's time limits for a statement and for a transaction, in seconds."""
    whole = (
        "transaction_timeout" if server_version >= 170000 else "idle_in_transaction_session_timeout"
    )
    return {"statement_timeout": min(_STATEMENT_SECONDS, LONGEST), whole: LONGEST}


def without_limits(connection: Connection) -> None:
    """Lift the time limits, for migrations. Invalidate the connection afterwards, or the pool hands
    it out again.

    A lock is waited for only briefly: all requests that need the table wait behind the migration.
    """
    if connection.dialect.name == "postgresql":
        version = connection.connection.dbapi_connection.info.server_version  # type: ignore[union-attr]
        for name in postgresql_limits(version):
            connection.exec_driver_sql(f"SET {name} = 0")
        connection.exec_driver_sql("SET lock_timeout = '300ms'")
        connection.commit()


class _TimedPool(QueuePool):
    """The pool of connections to PostgreSQL, which measures how long each request for one takes."""

    connect = metrics.POOL_WAIT.time()(QueuePool.connect)


def _engine(url: str) -> Engine:
    if url.startswith("sqlite"):
        return _sqlite(url)
    pool: Any = {"pool_size": 16, "max_overflow": 16, "pool_timeout": 1.5, "pool_pre_ping": True}
    settings: Any = {"poolclass": _TimedPool, "connect_args": _POSTGRESQL_WAITS}
    engine = create_engine(url, **_JSON, **pool, **settings)

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        dbapi.execute(_DURABLE)
        for name, seconds in postgresql_limits(dbapi.info.server_version).items():
            dbapi.execute("SELECT set_config(%s, %s, false)", (name, f"{int(seconds * 1000)}ms"))
        dbapi.commit()

    return engine


def _sqlite(url: str) -> Engine:
    settings = {"check_same_thread": False, "factory": SqliteConnection}
    engine = create_engine(url, **_JSON, connect_args=settings)
    path = engine.url.database
    lock = WriteLock(path) if path else None

    @event.listens_for(engine, "do_connect")
    def _create(*_: Any) -> None:
        if path and path != ":memory:":
            create_private(path)

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        dbapi.write_lock = lock
        dbapi.isolation_level = None  # `_begin` sends BEGIN
        for pragma in PRAGMAS:
            dbapi.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        dbapi = cast("SqliteConnection", connection.connection.dbapi_connection)
        dbapi.takes_long = options.get("deputy_takes_long", False)
        if not options.get("deputy_writes", False):
            connection.exec_driver_sql("BEGIN")
            return
        try:
            dbapi.begin_writing()
        except sqlite3.OperationalError as error:
            raise OperationalError("BEGIN IMMEDIATE", None, error) from error

    return engine
