"""SQLite as a server's database: whose turn it is to write, and nobody's requests waiting for somebody's disk."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from app.concurrency.gevent import off_hub

Result = TypeVar("Result")

_TURN_SECONDS = 10  # how long a writer waits for the writers before it
PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an audit row must survive a power cut before credentials leave
    "PRAGMA foreign_keys=ON",  # off by default, and they carry invariant 3
    "PRAGMA recursive_triggers=ON",  # or INSERT OR REPLACE would delete an audit event past its trigger
    f"PRAGMA busy_timeout={_TURN_SECONDS * 1000}",
)


def create_private(path: str) -> None:
    """Create the database's file for its owner alone, unless it is there. SQLite gives -wal and -shm the same mode.

    O_EXCL, as a file that is there must not be opened here: closing it would end this process's locks on it.
    """
    with suppress(OSError):  # there already; or SQLite says itself why it can't be made
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


class OneWriter:
    """Whose turn it is to write to a SQLite file, among all threads of all processes.

    SQLite lets waiting writers sleep and try again, so under load some wait for very long; the kernel wakes those
    who wait at a file lock in turn. Only one thread of a process waits at the file, or the threads that wait could
    take up every thread that the one who writes needs to finish.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}.lock"
        self._in_process = threading.Lock()
        self._file: int | None = None

    def take(self) -> None:
        """Wait for one's turn. Raises sqlite3.OperationalError, as SQLite itself does for a busy database."""
        if not self._in_process.acquire(timeout=_TURN_SECONDS):
            raise sqlite3.OperationalError("database is locked")
        try:
            self._lock_file()
        except BaseException as error:
            self._in_process.release()
            if isinstance(error, OSError):
                raise sqlite3.OperationalError(f"no lock on {self._path}: {error.strerror}") from error
            raise

    def give(self) -> None:
        """Let the next one write."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._in_process.release()

    def _lock_file(self) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            off_hub(fcntl.flock, self._file, fcntl.LOCK_EX)


class SqliteConnection(sqlite3.Connection):
    """One that holds its turn from `begin_writing` to the end of the transaction."""

    turn: OneWriter | None = None  # set for every connection of an engine
    takes_long = False  # set for every transaction: it looks through so much that others must not wait
    _holds_turn = False

    def cursor(self, *_: Any) -> "SqliteCursor":  # type: ignore[override]  # SQLAlchemy wants no other kind
        """SQLAlchemy's way in. What is executed on the connection itself is not for requests to wait for."""
        return SqliteCursor(self)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return sqlite3.Cursor(self).execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        return sqlite3.Cursor(self).executemany(sql, parameters)

    def begin_writing(self) -> None:
        """BEGIN IMMEDIATE, in turn. Raises sqlite3.OperationalError when it does not come."""
        if self.turn is not None:
            self.turn.take()
            self._holds_turn = True
        try:
            off_hub(self.execute, "BEGIN IMMEDIATE")
        except BaseException:
            self._end_turn()
            raise

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """One whole writing transaction around `work`, in turn and off the hub."""
        if self.turn is None:
            return self._transaction(work)
        self.turn.take()
        try:
            return off_hub(self._transaction, work)
        finally:
            self.turn.give()

    def _transaction(self, work: Callable[[], Result]) -> Result:
        self.execute("BEGIN IMMEDIATE")
        try:
            outcome = work()
            self.execute("COMMIT")
        except BaseException:
            if self.in_transaction:  # SQLite has rolled back by itself, after some errors
                self.execute("ROLLBACK")
            raise
        return outcome

    def commit(self) -> None:
        try:
            off_hub(super().commit)
        finally:
            self._end_turn()

    def rollback(self) -> None:
        try:
            super().rollback()
        finally:
            self._end_turn()

    def close(self) -> None:
        super().close()
        self._end_turn()

    def __del__(self) -> None:
        """Close what is left of the audit log's own connection, which no pool does; since 3.13 Python complains."""
        with suppress(sqlite3.ProgrammingError):  # it was never opened
            self.close()

    def _end_turn(self) -> None:
        if self._holds_turn and self.turn is not None:
            self._holds_turn = False
            self.turn.give()


class SqliteCursor(sqlite3.Cursor):
    """A look that takes long holds up its own request and no other. What is quick would only be slower for it."""

    connection: SqliteConnection

    def execute(self, sql: str, parameters: Any = ()) -> "SqliteCursor":
        if self.connection.takes_long:
            off_hub(super().execute, sql, parameters)
        else:
            super().execute(sql, parameters)
        return self

    def fetchall(self) -> list[Any]:
        return off_hub(super().fetchall) if self.connection.takes_long else super().fetchall()
