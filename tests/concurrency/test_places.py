"""Places: so many work at once, and whoever waits for somebody else has none meanwhile."""

import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from app.concurrency.places import Places, without_places, without_slot
from app.errors import RateLimitedError
from tests.support.waiting import until


class FullError(Exception):
    pass


def is_free(places):
    try:
        with places.place(0.0, FullError):
            return True
    except FullError:
        return False


def test_further_ones_are_refused_in_time():
    places = Places(at_once=2, waiting=1)
    with places.place(0.0, FullError), places.place(0.0, FullError):
        assert not is_free(places)
    assert is_free(places)


def test_one_waits_until_a_place_is_free_and_too_many_do_not():
    places, worked = Places(at_once=1, waiting=1), []

    def work():
        with places.place(None, FullError):
            worked.append(True)

    for earlier in (0, 1):  # who has waited leaves room for the next
        waiter = threading.Thread(target=work)
        with places.place(None, FullError):
            waiter.start()
            until(lambda: places.free._waiting)
            with pytest.raises(FullError), places.place(30, FullError):
                pass
            assert len(worked) == earlier
        waiter.join(30)
        assert len(worked) == earlier + 1


def test_a_wait_within_a_wait_gives_up_one_place():
    places = Places(at_once=1, waiting=1)
    with without_places(), places.place(0.0, FullError):
        with without_places(), without_places():
            assert is_free(places)
            with places.place(0.0, FullError):
                assert not is_free(places)
        assert not is_free(places)
    assert is_free(places)


def test_a_wait_gives_up_all_places():
    of_key, of_tenant = Places(at_once=1, waiting=1), Places(at_once=1, waiting=1)
    with of_key.place(0.0, FullError), of_tenant.place(0.0, FullError):
        with without_places():
            assert [is_free(of_key), is_free(of_tenant)] == [True, True]
        assert [is_free(of_key), is_free(of_tenant)] == [False, False]


@contextmanager
def closed_connection():
    raise TimeoutError
    yield


def test_a_request_whose_connection_is_closed_before_it_has_its_place_back_gives_up_no_other():
    places = Places(at_once=1, waiting=1)
    token = without_slot.set(closed_connection)
    with places.place(0.0, FullError), pytest.raises(RateLimitedError), without_places():
        assert places.free.acquire(0), "another request takes the place"
    with pytest.raises(RateLimitedError), places.place(None, FullError):
        pass
    without_slot.reset(token)
    assert not is_free(places)
    places.free.release()
    with places.place(0.0, FullError):
        assert not is_free(places)


@contextmanager
def connection_that_is_closed_while_it_waits():
    yield
    raise TimeoutError


def test_a_request_whose_client_has_gone_when_its_turn_comes_keeps_no_place():
    places, refused = Places(at_once=1, waiting=1), []

    def work():
        without_slot.set(connection_that_is_closed_while_it_waits)
        with pytest.raises(RateLimitedError), places.place(None, FullError):
            pass
        refused.append(True)

    waiter = threading.Thread(target=work)
    with places.place(None, FullError):
        waiter.start()
        until(lambda: places.free._waiting)
    waiter.join(30)
    assert refused == [True]
    assert is_free(places)


MANY_REQUESTS = """
import gevent.monkey
gevent.monkey.patch_all()
import random
from contextlib import contextmanager
import gevent
from gevent.lock import Semaphore
from app.concurrency.places import Places, without_places, without_slot

free, places, ended = Semaphore(8), Places(2, 1000), []

@contextmanager
def given_up():
    free.release()
    try:
        yield
    finally:
        free.acquire()

def request():
    with free:
        without_slot.set(given_up)
        with places.place(None, Exception):
            for _ in range(4):
                gevent.sleep(0.001)
                with without_places():
                    gevent.sleep(random.uniform(0.01, 0.03))
    ended.append(True)

gevent.joinall([gevent.spawn(request) for _ in range(60)], timeout=20)
print(len(ended))
"""


def test_requests_for_places_and_for_slots_do_not_wait_for_each_other():
    command = [sys.executable, "-c", MANY_REQUESTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "60\n", done.stderr
