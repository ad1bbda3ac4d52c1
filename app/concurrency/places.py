"""Places: a limited number of requests are processed at once, and others wait for a place.

A request gives up its places while it waits for AWS or for the rest of its body. So only requests
that use this process's time have places. While a request waits for a place, it also gives up its
slot. A web process has 256 slots for the requests of all tenants (app/http/sockets.py).
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gevent.lock import Semaphore

from app.concurrency.fair_lock import FairLock

# Maximum of requests that wait in a process, which accepts 2,000 connections
_ROOM = 1_000


_room = threading.BoundedSemaphore(_ROOM)
# The places of the current request, in the order in which it took them
_places: ContextVar[tuple["Places", ...]] = ContextVar("places", default=())
# The web process's slots, of which the current request holds one
slots: ContextVar[Semaphore | None] = ContextVar("slots", default=None)


class Places:
    """A number of places (`at_once`), for which at most `waiting` requests wait."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self.free = FairLock(at_once)
        self._waiting = threading.Semaphore(waiting)

    @contextmanager
    def place(self, timeout: float | None, refusal: Exception) -> Iterator[None]:
        """Hold a place while the `with` block runs.

        Raises `refusal` after `timeout` seconds without a place (None: waits for ever). Raises it
        at once when too many requests wait already.
        """
        if not (self.free.acquire(0) or self._wait(timeout)):
            raise refusal
        token = _places.set((*_places.get(), self))
        try:
            yield
        finally:
            _places.reset(token)
            self.free.release()

    def _wait(self, timeout: float | None) -> bool:
        """Wait for a place, and return whether the request got it."""
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            with _waiting_room() as has_room:
                return has_room and self.free.acquire(timeout)
        finally:
            self._waiting.release()


@contextmanager
def without_places() -> Iterator[None]:
    """Give up the places of the current request while the `with` block waits."""
    places = _places.get()
    token = _places.set(())  # a nested `with` block must not give up the places again
    for place in places:
        place.free.release()
    try:
        yield
    finally:
        for place in places:
            # A request that waits for a place must not keep its slot. Otherwise requests that wait
            # for places could have all slots, and those with the places wait for slots.
            if not place.free.acquire(0):
                with _without_slot():
                    place.free.acquire()
        _places.reset(token)


def pause(seconds: float) -> None:
    """Sleep without places or a slot. Return at once when too many requests wait already."""
    with without_places():
        rest(seconds)


def rest(seconds: float) -> None:
    """Sleep without a slot, and keep the places. Return at once when too many requests wait."""
    with _waiting_room() as has_room:
        if has_room:
            time.sleep(seconds)


@contextmanager
def _waiting_room() -> Iterator[bool]:
    """Give up the slot while the `with` block waits, and yield True.

    Yield False, and keep the slot, when too many requests wait already.
    """
    if not _room.acquire(blocking=False):
        yield False
        return
    try:
        with _without_slot():
            yield True
    finally:
        _room.release()


@contextmanager
def _without_slot() -> Iterator[None]:
    held_slots = slots.get()
    if held_slots is None:
        yield
        return
    held_slots.release()
    try:
        yield
    finally:
        held_slots.acquire()
