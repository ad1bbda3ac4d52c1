"""SQLite as a server's database: writers take turns, and slow work on the disk stays off the gevent hub."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from app.concurrency.gevent import Result, off_hub

_LOCK_SECONDS = 10  # for which a writer waits for those before it
PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an audit row must survive a power cut before credentials leave
    "PRAGMA foreign_keys=ON",  # off by default; they carry invariant 3 (docs/architecture.md)
    "PRAGMA recursive_triggers=ON",  # or INSERT OR REPLACE would delete an audit event past its trigger
    f"PRAGMA busy_timeout={_LOCK_SECONDS * 1000}",
)


def create_private(path: str) -> None:
    """Create the database's file, for its owner alone, unless it exists. SQLite gives -wal and -shm the same mode.

    O_EXCL: an existing file must not be opened here, because closing it would release this process's locks on it.
    """
    with suppress(OSError):  # it exists; otherwise SQLite says why it can't be created
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


class WriteLock:
    """The lock for writing to a SQLite file, among all threads of all processes.

    In SQLite, waiting writers sleep and try again, so under load some wait very long; at a file lock the kernel wakes
    them in order. Only one thread of a process waits at the file: more could occupy every thread that the writer needs
    to finish.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}.lock"
        self._in_process = threading.Lock()
        self._file: int | None = None

    def acquire(self) -> None:
        """Wait for the lock. Raises sqlite3.OperationalError after 10 seconds, as SQLite does for a busy database."""
        if not self._in_process.acquire(timeout=_LOCK_SECONDS):
            raise sqlite3.OperationalError("database is locked")
        try:
            self._lock_file()
        except BaseException as error:
            self._in_process.release()
            if isinstance(error, OSError):
                raise sqlite3.OperationalError(f"no lock on {self._path}: {error.strerror}") from error
            raise

    def release(self) -> None:
        """Let the next writer in."""
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
    """A connection that holds the write lock from `begin_writing` to the end of the transaction."""

    write_lock: WriteLock | None = None  # set for every connection of an engine
    takes_long = False  # set for every transaction: its queries run off the hub
    _holds_lock = False

    def cursor(self, *_: Any) -> "SqliteCursor":  # type: ignore[override]  # SQLAlchemy wants no other kind
        """For SQLAlchemy. Statements on the connection itself always run in the calling thread."""
        return SqliteCursor(self)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return sqlite3.Cursor(self).execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        return sqlite3.Cursor(self).executemany(sql, parameters)

    def begin_writing(self) -> None:
        """BEGIN IMMEDIATE under the write lock. Raises sqlite3.OperationalError when the lock is not free in time."""
        if self.write_lock is not None:
            self.write_lock.acquire()
            self._holds_lock = True
        try:
            off_hub(self.execute, "BEGIN IMMEDIATE")
        except BaseException:
            self._unlock()
            raise

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """Run `work` in one writing transaction, under the write lock and off the hub."""
        if self.write_lock is None:
            return self._transaction(work)
        self.write_lock.acquire()
        try:
            return off_hub(self._transaction, work)
        finally:
            self.write_lock.release()

    def _transaction(self, work: Callable[[], Result]) -> Result:
        self.execute("BEGIN IMMEDIATE")
        try:
            outcome = work()
            self.execute("COMMIT")
        except BaseException:
            if self.in_transaction:  # after some errors SQLite has rolled back by itself
                self.execute("ROLLBACK")
            raise
        return outcome

    def commit(self) -> None:
        try:
            off_hub(super().commit)
        finally:
            self._unlock()

    def rollback(self) -> None:
        try:
            super().rollback()
        finally:
            self._unlock()

    def close(self) -> None:
        super().close()
        self._unlock()

    def __del__(self) -> None:
        """Close the audit log's own connection, which no pool closes: Python 3.13 warns about an open one."""
        with suppress(sqlite3.ProgrammingError):  # it was never opened
            self.close()

    def _unlock(self) -> None:
        if self._holds_lock and self.write_lock is not None:
            self._holds_lock = False
            self.write_lock.release()


class SqliteCursor(sqlite3.Cursor):
    """Runs long queries off the hub, where they delay only their own request. Quick ones would be slower there."""

    connection: SqliteConnection

    def execute(self, sql: str, parameters: Any = ()) -> "SqliteCursor":
        if self.connection.takes_long:
            off_hub(super().execute, sql, parameters)
        else:
            super().execute(sql, parameters)
        return self

    def fetchall(self) -> list[Any]:
        return off_hub(super().fetchall) if self.connection.takes_long else super().fetchall()
