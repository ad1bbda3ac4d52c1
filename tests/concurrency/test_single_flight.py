"""One call for a key at a time, shared by the requests that come while it runs."""

import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import structlog

from app.concurrency.places import Places, held_places, without_slot
from app.concurrency.single_flight import SingleFlight, result_of
from dev.stack import ROOT
from tests.support.rows import at_once


class Call:
    """A call that is counted, and runs until the test lets it end."""

    def __init__(self, trouble=None):
        self.count, self.trouble, self.end = 0, trouble, threading.Event()

    def __call__(self):
        self.count += 1
        count = self.count
        assert self.end.wait(60)
        if self.trouble:
            raise self.trouble
        return count


@pytest.fixture
def flights():
    return SingleFlight()


@pytest.fixture
def call():
    made = Call()
    yield made
    made.end.set()


def test_requests_that_come_while_a_call_runs_share_it(flights, call):
    joined = at_once([lambda: flights.join("a", call)] * 20)
    call.end.set()
    assert {running.result(60) for running, _ in joined} == {1}
    assert [started for _, started in joined].count(True) == 1
    assert call.count == 1


GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent
from app.concurrency.single_flight import SingleFlight
calls = []
def call():
    calls.append(1)
    gevent.sleep(0.2)
    return 7
flights = SingleFlight()
greenlets = [gevent.spawn(lambda: flights.join("a", call)[0].result()) for _ in range(500)]
gevent.joinall(greenlets, raise_error=True)
print({greenlet.value for greenlet in greenlets}, len(calls))
"""


def test_greenlets_that_come_while_a_call_runs_share_it():
    output = subprocess.check_output([sys.executable, "-c", GREENLETS], cwd=ROOT, text=True)
    assert output == "{7} 1\n"


def test_another_key_has_a_call_of_its_own(flights, call):
    flights.join("a", call)
    assert flights.join("b", lambda: 7)[0].result(60) == 7


def test_a_call_that_has_ended_is_not_joined(flights, call):
    call.end.set()
    for count in range(1, 50):
        running, started = flights.join("a", call)
        assert (running.result(60), started) == (count, True)


def test_a_failure_reaches_all_who_wait_and_is_not_kept(flights):
    failing = Call(ValueError("no"))
    waiting = [flights.join("a", failing)[0] for _ in range(3)]
    failing.end.set()
    for running in waiting:
        with pytest.raises(ValueError, match="no"):
            running.result(60)
    assert flights.join("a", lambda: 7)[0].result(60) == 7


def test_an_abandoned_call_goes_on_for_those_who_wait_and_the_next_request_starts_another(
    flights, call
):
    first, _ = flights.join("a", call)
    flights.abandon("a", first)
    other = Call()
    second, started = flights.join("a", other)
    assert started
    flights.abandon("a", first)
    call.end.set()
    assert first.result(60) == 1
    assert flights.join("a", call) == (second, False), (
        "the end of the first one has not removed the second"
    )
    other.end.set()
    assert second.result(60) == 1
    assert flights.join("a", lambda: 7)[0].result(60) == 7


def test_log_lines_of_a_shared_call_name_the_request_that_started_it(flights):
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        running, _ = flights.join("a", structlog.contextvars.get_contextvars)
    assert running.result(60)["request_id"] == "r1"


def test_a_shared_call_can_not_give_up_the_places_of_the_request_that_started_it(flights):
    with Places(at_once=1, waiting=1).place(0.0, RuntimeError):
        running, _ = flights.join("a", held_places.get)
    assert running.result(60) == ()


def test_a_request_that_waits_for_a_shared_call_has_no_slot_meanwhile(flights, call):
    @contextmanager
    def given_up():
        call.end.set()
        yield

    running, _ = flights.join("a", call)
    token = without_slot.set(given_up)
    try:
        assert result_of(running, 10) == 1
    finally:
        without_slot.reset(token)
