"""The lock of those who write to one SQLite file."""

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from app.errors import StoreUnavailableError
from app.store import sqlite
from app.store.database import SYSTEM, Database
from app.store.sqlite import FileLock, SqliteConnection, WriteLock
from tests.support.waiting import until


def is_turnstile_free(path):
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_who_releases_the_lock_and_wants_it_again_lets_the_one_that_waits_go_first(tmp_path):
    """As two processes do; each object has files of its own."""
    busy, other, got = FileLock(f"{tmp_path}/db"), FileLock(f"{tmp_path}/db"), threading.Event()

    def wait():
        other.acquire()
        got.set()
        other.release()

    busy.acquire()
    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: not is_turnstile_free(tmp_path / "db.turnstile"))
    busy.release()
    assert not busy.acquire(blocking=False) or got.is_set(), (
        "the one that waits is in the turnstile until it has the lock"
    )
    thread.join(30)
    assert got.is_set()


def test_a_lock_is_tried_without_waiting(tmp_path):
    one, other = FileLock(f"{tmp_path}/db"), FileLock(f"{tmp_path}/db")
    assert one.acquire(blocking=False)
    assert not other.acquire(blocking=False)
    one.release()
    assert other.acquire(blocking=False)
    other.close()
    one.close()


@pytest.fixture
def own_sqlite(tmp_path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/db")
    yield made
    made.engine.dispose()


def test_a_writer_that_can_not_lock_the_file_leaves_its_turn_to_the_next(own_sqlite, tmp_path):
    unusable = tmp_path / "db.lock"
    unusable.mkdir()
    with pytest.raises(StoreUnavailableError), own_sqlite.write(SYSTEM):
        pass
    unusable.rmdir()
    with own_sqlite.write(SYSTEM):
        pass


def test_a_transaction_that_can_not_begin_keeps_no_lock(own_sqlite, tmp_path, monkeypatch):
    """A SQL prompt has SQLite's own lock."""
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT", "PRAGMA busy_timeout=10")
    with own_sqlite.write(SYSTEM):  # makes the file
        pass
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as prompt:
        prompt.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError), own_sqlite.write(SYSTEM):
            pass
    with own_sqlite.write(SYSTEM):
        pass


def test_a_batch_waits_in_the_turnstile_as_other_writers_do(tmp_path):
    path, began = f"{tmp_path}/db", threading.Event()
    busy, options = FileLock(path), {"isolation_level": None, "check_same_thread": False}
    with closing(SqliteConnection(WriteLock(path), path, **options)) as connection:
        busy.acquire()
        batch = threading.Thread(target=connection.run_batch, args=[began.set])
        batch.start()
        until(lambda: began.is_set() or not is_turnstile_free(tmp_path / "db.turnstile"))
        assert not began.is_set()
        busy.release()
        batch.join(30)
        assert began.is_set()
    busy.close()


def test_a_closed_connection_leaves_no_lock_file_open(tmp_path):
    path = f"{tmp_path}/db"
    connection = SqliteConnection(WriteLock(path), path, isolation_level=None)
    connection.run_batch(lambda: None)
    connection.close()
    assert connection._batch_lock._files == []
