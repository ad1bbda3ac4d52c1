"""The lock of those who write to one SQLite file."""

import threading

from app.store.sqlite import FileLock
from tests.support.waiting import until


def test_who_releases_the_lock_and_wants_it_again_lets_the_one_that_waits_go_first(tmp_path):
    """As two processes do; each object has files of its own."""
    busy, other, order, ended = FileLock(f"{tmp_path}/db"), FileLock(f"{tmp_path}/db"), [], threading.Event()

    def again_and_again() -> None:
        while not ended.is_set():
            with busy:
                order.append("busy")

    thread = threading.Thread(target=again_and_again)
    thread.start()
    until(lambda: len(order) > 100)
    for _ in range(50):
        with other:
            order.append("other")
    ended.set()
    thread.join(30)
    turns = "".join(name[0] for name in order)
    passed = max(len(run) for run in turns[turns.index("o") : turns.rindex("o")].split("o"))
    assert passed < 50, "without the turnstile it passes hundreds of times"


def test_a_lock_is_tried_without_waiting(tmp_path):
    one, other = FileLock(f"{tmp_path}/db"), FileLock(f"{tmp_path}/db")
    assert one.try_acquire()
    assert not other.try_acquire()
    one.release()
    assert other.try_acquire()
    other.close()
    one.close()
