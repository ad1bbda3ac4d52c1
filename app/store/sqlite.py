"""SQLite as a server's database.

Writers wait for one fair lock, and slow disk work runs off the gevent hub.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from app import metrics
from app.concurrency.fair_lock import FairLock
from app.concurrency.gevent import Result, off_hub

_LOCK_SECONDS = 10  # timeout of a writer that waits for the lock
_TRIES = 4  # attempts to take the lock without blocking
_BUSY_TIMEOUT = f"PRAGMA busy_timeout={_LOCK_SECONDS * 1000}"
PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an audit row must survive a power cut before credentials leave
    "PRAGMA foreign_keys=ON",  # off by default; they carry invariant 3 (docs/architecture.md)
    # otherwise INSERT OR REPLACE would delete an audit event without firing its trigger
    "PRAGMA recursive_triggers=ON",
    _BUSY_TIMEOUT,
)


def create_private(path: str) -> None:
    """Create the database's file with access for its owner only, unless it exists.

    SQLite gives -wal and -shm the same mode. O_EXCL: an existing file must not be opened here,
    because closing it would release this process's locks on it.
    """
    with suppress(OSError):  # the file exists; SQLite reports other errors itself
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


class FileLock:
    """The write lock of a SQLite file, among processes and within one.

    SQLite's own waiting writers sleep and retry, so under load some wait very long. Here the kernel
    wakes them. It wakes all of them, and a process that has just released a file would often lock
    it again first. So each writer first locks a second file, the turnstile. The writer that holds
    the turnstile gets the lock next.

    Each object excludes the others, including those of its own process. Only one thread at a time
    may use an object.
    """

    def __init__(self, path: str) -> None:
        self._paths = f"{path}.turnstile", f"{path}.lock"
        self._files: list[int] = []

    def acquire(self, flags: int = 0) -> None:
        """Block the thread until the lock is free.

        Raises sqlite3.OperationalError when the lock file can't be used. With `fcntl.LOCK_NB` it
        raises BlockingIOError at once, if the lock is not free or somebody waits for it.
        """
        try:
            for path in self._paths[len(self._files) :]:
                self._files.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            turnstile, lock = self._files
            fcntl.flock(turnstile, fcntl.LOCK_EX | flags)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | flags)
            finally:
                fcntl.flock(turnstile, fcntl.LOCK_UN)
        except BlockingIOError:
            raise
        except OSError as error:
            message = f"no lock on {self._paths[-1]}: {error.strerror}"
            raise sqlite3.OperationalError(message) from error

    def try_acquire(self) -> bool:
        """Take the lock if it is free and nobody waits for it. Return whether it was taken."""
        try:
            self.acquire(fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Release the lock for the next writer. Do nothing when it is not held."""
        if len(self._files) == len(self._paths):
            fcntl.flock(self._files[-1], fcntl.LOCK_UN)

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())


class WriteLock:
    """The file lock of a process's transactions, except for those of the audit log's batch.

    Only one thread of a process waits at the file. More could occupy every thread that the current
    writer needs to finish. The batch has a file lock of its own. So it waits for at most one of
    these transactions, and not for the queue.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._in_process = FairLock()
        self._file = FileLock(path)

    def acquire(self) -> None:
        """Wait for the lock. Raises sqlite3.OperationalError after 10 seconds."""
        if not self._in_process.acquire(_LOCK_SECONDS):
            raise sqlite3.OperationalError("database is locked")
        try:
            for _ in range(_TRIES):
                if self._file.try_acquire():
                    break
                off_hub(self._wait)
            else:
                off_hub(self._file.acquire)
        except BaseException:
            self.leave()
            raise
        self._since = time.perf_counter()

    def _wait(self) -> None:
        """Wait until the lock is free, without keeping it.

        Other processes can use it until the hub returns to this greenlet.
        """
        self._file.acquire()
        self._file.release()

    def release(self) -> None:
        """Release the file lock for another process's writer or the batch.

        Call it in the thread that ended the transaction.
        """
        self._file.release()
        metrics.WRITE_LOCK_SECONDS.observe(time.perf_counter() - self._since)

    def leave(self) -> None:
        """Let the next transaction of this process wait at the file.

        Call it in the greenlet that called `acquire`.
        """
        self._in_process.release()


class SqliteConnection(sqlite3.Connection):
    """A connection that holds the write lock from `begin_writing` to the end of the transaction."""

    write_lock: WriteLock  # set for each connection of an engine
    takes_long = False  # set for each transaction; its queries then run off the hub
    _held: WriteLock | None = None
    _batch_lock: FileLock | None = None

    # SQLAlchemy wants no other kind
    def cursor(self, *_: Any) -> "SqliteCursor":  # type: ignore[override]
        """Return a cursor for SQLAlchemy.

        Statements on the connection itself always run in the calling thread.
        """
        return SqliteCursor(self)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return sqlite3.Cursor(self).execute(sql, parameters)

    def begin_writing(self) -> None:
        """Take the write lock and begin an immediate transaction.

        Raises sqlite3.OperationalError when the lock is not free in time.
        """
        self.write_lock.acquire()
        self._held = self.write_lock
        try:
            self._begin()
        except BaseException:
            self._held.release()
            self._leave()
            raise

    def _begin(self) -> None:
        """Begin in this thread if SQLite's own lock is free; otherwise wait off the hub.

        Somebody at a SQL prompt may hold that lock.
        """
        self.execute("PRAGMA busy_timeout=0")
        try:
            self.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            self.execute(_BUSY_TIMEOUT)
            off_hub(self.execute, "BEGIN IMMEDIATE")
        else:
            self.execute(_BUSY_TIMEOUT)

    def run_batch(self, work: Callable[[], Result]) -> Result:
        """Run `work` in one writing transaction, in one thread off the hub.

        The thread also waits for the lock and releases it.
        """
        return off_hub(self._batch, work)

    def _batch(self, work: Callable[[], Result]) -> Result:
        if self._batch_lock is None:
            self._batch_lock = FileLock(self.write_lock.path)
        self._batch_lock.acquire()
        try:
            self.execute("BEGIN IMMEDIATE")
            outcome = work()
            self.execute("COMMIT")
        except BaseException:
            if self.in_transaction:  # after some errors SQLite has already rolled back
                self.execute("ROLLBACK")
            raise
        finally:
            self._batch_lock.release()
        return outcome

    def commit(self) -> None:
        try:
            off_hub(self._end, super().commit)
        finally:
            self._leave()

    def rollback(self) -> None:
        try:
            self._end(super().rollback)
        finally:
            self._leave()

    def close(self) -> None:
        self._end(super().close)
        self._leave()
        if self._batch_lock is not None:
            self._batch_lock.close()

    def __del__(self) -> None:
        """Close the audit log's own connection, which no pool closes.

        Python 3.13 warns about open connections.
        """
        with suppress(sqlite3.ProgrammingError):  # the connection was never opened
            self.close()

    def _end(self, work: Callable[[], object]) -> None:
        """Run the last work of a transaction, and release the lock in the same thread."""
        try:
            work()
        finally:
            if self._held is not None:
                self._held.release()

    def _leave(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.leave()


class SqliteCursor(sqlite3.Cursor):
    """A cursor that runs long queries off the hub, where they delay only their own request.

    Short queries would be slower there.
    """

    connection: SqliteConnection

    def execute(self, sql: str, parameters: Any = ()) -> "SqliteCursor":
        if self.connection.takes_long:
            off_hub(super().execute, sql, parameters)
        else:
            super().execute(sql, parameters)
        return self

    def fetchall(self) -> list[Any]:
        return off_hub(super().fetchall) if self.connection.takes_long else super().fetchall()
