"""Places for requests: a limited number of them work at once, and further ones wait.

A request gives up its places while it waits for somebody else (AWS, or a body that is on its way).
So places count the work that this process does. While a request waits for a place it also gives up
its slot, of which a web process has 256 for all tenants (app/http/sockets.py).
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gevent.lock import Semaphore

from app.concurrency.fair_lock import FairLock

_ROOM = 1_000  # requests that wait in a process; it has 2,000 connections


_room = threading.BoundedSemaphore(_ROOM)
# The places of the current request, in the order in which it took them
_places: ContextVar[tuple["Places", ...]] = ContextVar("places", default=())
# The web process's slots, which the requests of this context give up while they wait
slots: ContextVar[Semaphore | None] = ContextVar("slots", default=None)


class Places:
    """`at_once` places, for which at most `waiting` requests wait."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self.free = FairLock(at_once)
        self._waiting = threading.Semaphore(waiting)

    @contextmanager
    def place(self, timeout: float | None, refusal: Exception) -> Iterator[None]:
        """Hold a place.

        Raises the refusal after `timeout` seconds (None: never), and at once when too many requests
        wait.
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
    """Give up the places of the current request while it waits for somebody else."""
    places = _places.get()
    token = _places.set(())  # a wait within this one has none to give up
    for place in places:
        place.free.release()
    try:
        yield
    finally:
        for place in places:
            place.free.acquire()
        _places.reset(token)


def pause(seconds: float) -> None:
    """Sleep without a place and without a slot. Return at once when too many requests wait."""
    with without_places(), _waiting_room() as has_room:
        if has_room:
            time.sleep(seconds)


@contextmanager
def _waiting_room() -> Iterator[bool]:
    """Enter the waiting room, without a slot. Yield False if the room is full."""
    if not _room.acquire(blocking=False):
        yield False
        return
    held_slots = slots.get()
    try:
        if held_slots is not None:
            held_slots.release()
        try:
            yield True
        finally:
            if held_slots is not None:
                held_slots.acquire()
    finally:
        _room.release()
