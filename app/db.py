"""The database: engine, transactions, column types, and keyset pages.

Two ways in, and no third: `Database.read()` for a look, `Database.write()` for one short transaction. On SQLite a
writing transaction begins IMMEDIATE: one that reads first and writes later fails at once when another process
wrote in between, whatever the timeout. No network call may happen inside either (the tests refuse it).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import DateTime, Dialect, Engine, Select, create_engine, event
from sqlalchemy.engine import Connection as DbConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from app.errors import StoreUnavailableError

Row = TypeVar("Row")

_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an audit row must survive a power cut before credentials leave
    "PRAGMA foreign_keys=ON",  # off by default, and they carry invariant 3
    "PRAGMA recursive_triggers=ON",  # or INSERT OR REPLACE would delete an audit event past its trigger
    "PRAGMA busy_timeout=10000",
)


def now() -> datetime:
    """The clock: the only place that asks for the time."""
    return datetime.now(UTC)


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


class Database:
    """The engine and its two kinds of transactions. Cheap to make; it connects when first used."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._writing = self.engine.execution_options(deputy_writes=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for looking; whatever it changes is rolled back. Raises StoreUnavailableError."""
        with unavailable(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: commits at the end, rolls back on any exception. Raises StoreUnavailableError."""
        with unavailable(), Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session


@contextmanager
def unavailable() -> Iterator[None]:
    """A database that is away, full or locked is a 503; a violated constraint is not, and passes."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise StoreUnavailableError("The database can't be reached right now; try again.") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreUnavailableError("The database can't be reached right now; try again.") from error
        raise


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=16, max_overflow=16, pool_timeout=5, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        dbapi.isolation_level = None  # SQLAlchemy's BEGIN is ours to write, below
        for pragma in _SQLITE_PRAGMAS:
            dbapi.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(connection: DbConnection) -> None:
        writes = connection.get_execution_options().get("deputy_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page of a list, newest first, and where the next one starts (None after the last)."""

    items: list[Row]
    after: UUID | None


def page(session: Session, query: Select[Row], key: Any, *, limit: int, after: UUID | None) -> Page[Row]:
    """The next `limit` rows of `query` below `after`, by `key`, a UUIDv7 column: in order of creation.

    No count and no OFFSET, whose cost grows with the depth; one row more than asked tells whether there are more.
    """
    if after is not None:
        query = query.where(key < after)
    rows = list(session.scalars(query.order_by(key.desc()).limit(limit + 1)))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, getattr(rows[-1], key.key) if more else None)
