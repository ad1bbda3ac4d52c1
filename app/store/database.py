"""The database, a PostgreSQL: its engine, transactions and locks.

`Database.read()` opens a session for queries. `Database.write(writer)` opens one short transaction.
Issuing stores its audit events over a separate connection (app/audit/batch_insert.py).

No transaction may contain a network call. The tests enforce that.
"""

import enum
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ParamSpec, Protocol
from uuid import UUID

import orjson
from sqlalchemy import (
    DateTime,
    Engine,
    ExceptionContext,
    QueuePool,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    TimeoutError as PoolTimeoutError,
)
from sqlalchemy.orm import Session

from app import metrics
from app.concurrency.gevent import Result
from app.errors import ConflictError, StoreUnavailableError

P = ParamSpec("P")

_UNREACHABLE = "The database can't be reached right now; try again."
_UNPREPARED = "The database is not prepared: a table or a right is missing."
# PostgreSQL's error codes serialization_failure, deadlock_detected and lock_not_available
_COLLISIONS = {"40001", "40P01", "55P03"}
# undefined_table: the database has not been migrated yet. insufficient_privilege: its role lacks a
# right.
_NOT_PREPARED = {"42P01", "42501"}
# read_only_sql_transaction: a standby answers, for example after a failover
_READ_ONLY = "25006"
_COLLIDED = "Another request changed the same things at the same time; try again."
_TRIES = 4  # attempts of `until_committed`
# An asynchronous commit is not durable, so synchronous_commit is always on.
_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE"
    " current_setting('synchronous_commit') = 'off'"
)
# A database may have other defaults. After a lock, the next statement must see what was committed
# meanwhile; psycopg reads no other notation of times; and times are in UTC.
_EXPECTED = (
    "SET default_transaction_isolation = 'read committed'; SET datestyle = 'ISO';"
    " SET timezone = 'UTC'"
)
# Maximum duration of a transaction in seconds, and so the maximum age of an audit event when it is
# stored. The feed shows only older events (FEED_SECONDS in app/audit/log.py).
LONGEST = 15
_STATEMENT_SECONDS = 10  # timeout of a statement, which may wait for a lock or read many rows
# Timeouts after which the database counts as unavailable: seconds for connect_timeout, milliseconds
# for tcp_user_timeout. AWS SDKs wait two seconds for container credentials.
_POSTGRESQL_WAITS = {
    "connect_timeout": 2,
    "tcp_user_timeout": 2000,
    # A host that vanishes while a statement runs would be noticed after two hours. With
    # tcp_user_timeout, Linux gives up after the first keepalive that is not answered.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
}
# Without it, psycopg returns bytes from a database whose encoding is SQL_ASCII
_POSTGRESQL_OPTIONS = _POSTGRESQL_WAITS | {"client_encoding": "utf8"}
# All principals share this number of locks. So the locks for a key family of any size fit into
# PostgreSQL's lock table, which has 6,400 entries by default.
_PRINCIPALS = 1024
_ROWS = 2**31  # a lock's number is a signed integer of four bytes


def database_now(db: Session) -> datetime:
    """Return the time of the database's clock, which is the same for all processes."""
    return db.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True)))).one()


def as_json(value: Any) -> str:
    """Return the JSON text of a value, as it is stored in a JSON column."""
    return orjson.dumps(value).decode()


class Lock(enum.IntEnum):
    """Fair locks, granted in the order in which transactions requested them.

    PostgreSQL's row locks are not fair. A request for a shared lock overtakes a transaction that
    waits for an exclusive one. When several transactions wait to update a row, any of them may be
    next. So a client that writes without a pause could delay a revocation without limit.

    These locks are advisory locks, which PostgreSQL releases at the end of the transaction.

    Every transaction takes them in the order of these members and then of the locks' numbers, and
    each before the rows that it protects. Take a lock in one statement, and read what it protects
    in the next: a statement does not see what was committed while it waited.
    """

    # The value is the first of the advisory lock's two numbers
    MAKING = 7301  # shared: creates a key or a link; exclusive: keeps families from growing
    PRINCIPAL = 7302  # shared: a principal writes; exclusive: the principal is being revoked
    TENANT = 7303  # protects the tenant's row
    CONNECTION = 7304  # protects the connection's row
    ENDPOINTS = 7305  # protects the number of the vendor's webhook endpoints

    def share(self, db: Session, *subjects: UUID) -> None:
        """Take the locks on these subjects in shared mode, until the transaction ends.

        `MAKING` is a single lock, without a subject.
        """
        self._take(db, "pg_advisory_xact_lock_shared", subjects)

    def hold(self, db: Session, *subjects: UUID) -> None:
        """Take the locks on these subjects in exclusive mode, until the transaction ends."""
        self._take(db, "pg_advisory_xact_lock", subjects)

    def _take(self, db: Session, function: str, subjects: tuple[UUID, ...]) -> None:
        """Take the locks. Their second numbers are the random last bits of the subjects' ids."""
        most = _PRINCIPALS if self is Lock.PRINCIPAL else _ROWS
        numbers = sorted({subject.int % most for subject in subjects}) or [0]
        query = text(
            f"SELECT {function}({self.value}, number)"  # noqa: S608  constants
            " FROM unnest(CAST(:numbers AS integer[])) AS number"
        )
        db.execute(query, {"numbers": numbers})


def until_committed(stop: Callable[P, Result]) -> Callable[P, Result]:
    """Retry a revocation, suspension or deletion if its transaction collides with another.

    Nobody should have to send such a request twice.
    """

    @functools.wraps(stop)
    def repeat(*args: P.args, **kwargs: P.kwargs) -> Result:
        for _ in range(_TRIES - 1):
            try:
                return stop(*args, **kwargs)
            except ConflictError as error:
                if not isinstance(error.__cause__, OperationalError):
                    raise
        return stop(*args, **kwargs)

    return repeat


class Writer(Protocol):
    """The principal of a writing transaction: an API key, an onboarding link, or Deputy itself."""

    def reauthorize(self, db: Session) -> None:
        """Check inside this transaction that the principal may still act.

        Raises an AppError if it may not.
        """


class _System:
    def reauthorize(self, db: Session) -> None:
        """Do nothing: Deputy itself has no key that could have been revoked."""


# The writer for background workers, stacks' messages, housekeeping, and the operator's commands
SYSTEM = _System()


class Database:
    """The engine, and its two kinds of transactions.

    Creating this object is cheap, because the engine connects only when it is used.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session for queries, and roll back its changes. Raises StoreUnavailableError."""
        with store_errors(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, writer: Writer) -> Iterator[Session]:
        """Open a transaction. It commits at the end, and rolls back on any exception.

        First it calls `writer.reauthorize`, because the key may have been revoked while the
        request's body arrived. Raises the errors of `reauthorize`, ConflictError when PostgreSQL
        ended a deadlock by cancelling this transaction, and StoreUnavailableError.
        """
        with (
            store_errors(),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            began = time.monotonic()
            writer.reauthorize(session)
            yield session
            # PostgreSQL before version 17 can't limit the duration of a transaction.
            if time.monotonic() - began > LONGEST:
                raise StoreUnavailableError(_UNREACHABLE)

    def leave_standby(self) -> bool:
        """Return whether PostgreSQL refuses writes, as a standby does.

        If so, replace the pool's connections, as the database's name may lead elsewhere by now.
        Raises StoreUnavailableError.
        """
        with self.read() as db:
            if db.scalar(text("SHOW transaction_read_only")) == "off":
                return False
        self.engine.dispose()
        return True

    def dedicated(self) -> Any:
        """Take a driver connection out of the pool, and return it for the caller's own use.

        Raises StoreUnavailableError.
        """
        with store_errors():
            connection = self.engine.raw_connection()
            connection.detach()
            return connection.dbapi_connection


def sqlstate(error: Exception) -> str | None:
    """Return PostgreSQL's error code (SQLSTATE); None if the error has none."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


@contextmanager
def store_errors() -> Iterator[None]:
    """Translate the driver's errors inside the `with` block.

    Raises StoreUnavailableError when the database is unreachable, full, locked or empty, and
    ConflictError when two transactions collided. Violated constraints are raised unchanged.
    """
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        if sqlstate(error) in _COLLISIONS:
            raise ConflictError(_COLLIDED) from error
        raise StoreUnavailableError(_UNREACHABLE) from error
    except DBAPIError as error:
        if sqlstate(error) in _NOT_PREPARED:
            raise StoreUnavailableError(_UNPREPARED) from error
        if error.connection_invalidated:
            raise StoreUnavailableError(_UNREACHABLE) from error
        raise


def postgresql_limits(server_version: int) -> dict[str, float]:
    """Return PostgreSQL's time limits for a statement and for a transaction, in seconds."""
    whole = (
        "transaction_timeout" if server_version >= 170000 else "idle_in_transaction_session_timeout"
    )
    return {"statement_timeout": min(_STATEMENT_SECONDS, LONGEST), whole: LONGEST}


class _TimedPool(QueuePool):
    """A connection pool that measures how long a request waits for a connection."""

    connect = metrics.POOL_WAIT.time()(QueuePool.connect)


_OPTIONS: Any = {
    "json_serializer": as_json,
    "json_deserializer": orjson.loads,
    "poolclass": _TimedPool,
    # These 32 connections are more than the 24 requests with unbound keys that a process works on
    # at once (app/limits/tenant_share.py). With fewer, a revocation would have to wait for one of
    # these requests.
    "pool_size": 16,
    "max_overflow": 16,
    "pool_timeout": 1.5,
}


def _engine(url: str) -> Engine:
    engine = create_engine(url, pool_pre_ping=True, connect_args=_POSTGRESQL_OPTIONS, **_OPTIONS)

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        dbapi.execute(_DURABLE)
        dbapi.execute(_EXPECTED)
        for name, seconds in postgresql_limits(dbapi.info.server_version).items():
            dbapi.execute("SELECT set_config(%s, %s, false)", (name, f"{int(seconds * 1000)}ms"))
        dbapi.commit()

    @event.listens_for(engine, "handle_error")
    def _leave_standby(context: ExceptionContext) -> None:
        """Replace the pool's connections. A standby answers `pool_pre_ping`, so they would stay."""
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            context.is_disconnect = True

    return engine
