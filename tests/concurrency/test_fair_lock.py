"""Who waits longest is next, and nobody who has left is handed the lock."""

import threading

import gevent
import pytest

from app.concurrency.places import FairLock, urgent
from tests.support.waiting import until


def waiting(lock, order, name, *, hurry=False):
    def work():
        urgent.set(hurry)
        lock.acquire()
        order.append(name)
        lock.release()

    queue = lock._urgent if hurry else lock._waiting
    before = len(queue)
    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: len(queue) > before)
    return thread


def test_the_lock_is_handed_over_in_the_order_of_asking_but_for_urgent_requests():
    lock, order = FairLock(), []
    lock.acquire()
    threads = [waiting(lock, order, "first"), waiting(lock, order, "second")]
    threads += [waiting(lock, order, name, hurry=True) for name in ("urgent", "urgent too")]
    lock.release()
    assert not lock.acquire(0) or order, "who comes later does not pass those that wait"
    for thread in threads:
        thread.join(30)
    assert order == ["urgent", "urgent too", "first", "second"]


def test_urgent_requests_do_not_keep_the_others_waiting_for_ever():
    lock, order = FairLock(), []
    lock.acquire()
    threads = [waiting(lock, order, "other")]
    threads += [waiting(lock, order, "urgent", hurry=True) for _ in range(20)]
    lock.release()
    for thread in threads:
        thread.join(30)
    assert order.index("other") == 15


def test_who_gave_up_or_was_killed_is_not_handed_the_lock(monkeypatch):
    lock = FairLock()
    lock.acquire()
    assert not lock.acquire(0.001)
    monkeypatch.setattr(
        threading.Event, "wait", lambda *_: (_ for _ in ()).throw(gevent.GreenletExit)
    )
    with pytest.raises(gevent.GreenletExit):
        lock.acquire()
    lock.release()
    assert lock.acquire(0)
