"""The lock of those who write to one SQLite file."""

import fcntl
import threading

from app.store.sqlite import FileLock
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
