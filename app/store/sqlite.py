"""SQLite for many concurrent requests: a fair write lock, and slow disk work off the gevent hub."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app import metrics
from app.concurrency.gevent import Result, off_hub
from app.concurrency.places import FairLock

_LOCK_SECONDS = 10  # how long a transaction waits for the write lock
_TRIES = 4  # attempts to take the file lock without blocking
_BUSY_TIMEOUT = f"PRAGMA busy_timeout={_LOCK_SECONDS * 1000}"
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an audit row must survive a power cut before credentials leave
    "PRAGMA foreign_keys=ON",  # off by default; invariant 3 (docs/architecture.md) needs them
    # Without recursive triggers, INSERT OR REPLACE could delete an audit event: the trigger that
    # refuses it would not run.
    "PRAGMA recursive_triggers=ON",
    _BUSY_TIMEOUT,
)


class FileLock:
    """The write lock of a SQLite file, among processes and within one.

    Writers that wait for SQLite's own lock sleep and retry, so under load some of them wait very
    long. With flock, the kernel wakes the writers that wait. It wakes all of them, and the process
    that has just released the lock would often take it again first. So each writer first locks a
    second file, the turnstile. The writer that holds the turnstile gets the lock next.

    Two FileLock objects exclude each other even in the same process. Only one thread at a time may
    use an object.
    """

    def __init__(self, path: str) -> None:
        self._paths = f"{path}.turnstile", f"{path}.lock"
        self._files: list[int] = []

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take the lock, and return True. Block the thread until it is free.

        Without `blocking`, return False at once if the lock is not free or another writer waits for
        it. Raises sqlite3.OperationalError when a lock file can't be used.
        """
        flags = fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            for path in self._paths[len(self._files) :]:
                self._files.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            turnstile, lock = self._files
            fcntl.flock(turnstile, flags)
            try:
                fcntl.flock(lock, flags)
            finally:
                fcntl.flock(turnstile, fcntl.LOCK_UN)
        except OSError as error:
            if isinstance(error, BlockingIOError) and not blocking:
                return False
            message = f"no lock on {self._paths[-1]}: {error.strerror}"
            raise sqlite3.OperationalError(message) from error
        return True

    def release(self) -> None:
        """Release the lock if it is held."""
        if len(self._files) == len(self._paths):
            fcntl.flock(self._files[-1], fcntl.LOCK_UN)

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())


class WriteLock:
    """The write lock for all transactions of a process, except those of the audit log's batches.

    Only one thread of a process waits for the file lock. If more waited, they could occupy all
    threads, and the current writer needs a thread to finish. The audit log uses a file lock of its
    own. A batch therefore waits for at most one of this process's transactions, not for its queue.
    """

    def __init__(self, path: str) -> None:
        self._in_process = FairLock()
        self._file = FileLock(path)

    def acquire(self) -> None:
        """Wait for the lock. Raises sqlite3.OperationalError after 10 seconds."""
        if not self._in_process.acquire(_LOCK_SECONDS):
            raise sqlite3.OperationalError("database is locked")
        try:
            for _ in range(_TRIES):
                if self._file.acquire(blocking=False):
                    break
                off_hub(self._wait)
            else:
                off_hub(self._file.acquire)
        except BaseException:
            self.leave()
            raise
        self._since = time.perf_counter()

    def _wait(self) -> None:
        """Wait until the file lock is free, but do not keep it.

        Until the hub switches back to this greenlet, other processes can use the lock.
        """
        self._file.acquire()
        self._file.release()

    def release(self) -> None:
        """Release the file lock, so that another process or the audit log's batch can take it.

        Call this method in the thread that ended the transaction.
        """
        self._file.release()
        metrics.WRITE_LOCK_SECONDS.observe(time.perf_counter() - self._since)

    def leave(self) -> None:
        """Let the next transaction of this process wait for the file lock.

        Call this method in the greenlet that called `acquire`.
        """
        self._in_process.release()


class SqliteConnection(sqlite3.Connection):
    """A connection that holds the write lock from `begin_writing` to the end of the transaction."""

    takes_long = False  # whether the queries of this transaction run off the hub
    _holds_lock = False

    def __init__(self, write_lock: WriteLock, path: str, **options: Any) -> None:
        """Open the file. `write_lock`: the lock of all connections of an engine."""
        self._write_lock = write_lock
        self._batch_lock = FileLock(path)
        # Create the file, unless it exists, with access for its owner only. SQLite gives the files
        # -wal and -shm the same mode. An existing file must not be opened here: closing it would
        # release this process's locks on it. SQLite reports errors itself.
        with suppress(OSError):
            Path(path).touch(0o600, exist_ok=False)
        super().__init__(path, **options)
        for pragma in _PRAGMAS:
            self.execute(pragma)

    # The overridden method takes a factory, which nobody passes
    def cursor(self, *_: Any) -> "SqliteCursor":  # type: ignore[override]
        return SqliteCursor(self)

    def begin_writing(self) -> None:
        """Take the write lock and begin an immediate transaction.

        Raises sqlite3.OperationalError when the lock is not free in time. The pool then rolls
        back, which releases the write lock.
        """
        self._write_lock.acquire()
        self._holds_lock = True
        self._begin()

    def _begin(self) -> None:
        """Begin the transaction in this thread if SQLite's own lock is free.

        Otherwise wait for that lock off the hub. Only other programs, such as a SQL prompt, hold
        SQLite's lock without the write lock.
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
        """Run `work` in one writing transaction. Call this method off the hub.

        The same thread waits for the file lock and releases it.
        """
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
        self._batch_lock.close()

    def __del__(self) -> None:
        """Close the connection, because Python 3.13 warns about connections that are left open.

        No pool closes the audit log's connection.
        """
        with suppress(sqlite3.ProgrammingError):  # the connection was never opened
            self.close()

    def _end(self, work: Callable[[], object]) -> None:
        """Run `work`, which ends the transaction, and release the file lock in the same thread."""
        try:
            work()
        finally:
            if self._holds_lock:
                self._write_lock.release()

    def _leave(self) -> None:
        self.takes_long = False
        if self._holds_lock:
            self._holds_lock = False
            self._write_lock.leave()


class SqliteCursor(sqlite3.Cursor):
    """A cursor that runs long queries off the hub, where they do not delay other requests.

    Short queries run in the calling thread, because the switch to another thread costs more.
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
