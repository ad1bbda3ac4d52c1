"""Places for requests: so many of them may work at once, and further ones wait.

A request gives up its place while it waits for somebody else (AWS, or a body that is on its way), so what counts is the
work that this process does for it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_place: ContextVar["Places | None"] = ContextVar("place", default=None)  # that the present request has


class Places:
    """`at_once` places, for which at most `waiting` requests wait."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = threading.Semaphore(at_once)
        self._waiting = threading.Semaphore(waiting)

    @contextmanager
    def place(self, timeout: float | None, refusal: Exception) -> Iterator[None]:
        """Hold a place. Raises the refusal after `timeout` seconds (None: never), and at once when too many wait."""
        if not self._taken(timeout):
            raise refusal
        before = _place.set(self)
        try:
            yield
        finally:
            _place.reset(before)
            self._free.release()

    def _taken(self, timeout: float | None) -> bool:
        if self._free.acquire(blocking=False):
            return True
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            return self._free.acquire(timeout=timeout)
        finally:
            self._waiting.release()

    @contextmanager
    def without(self) -> Iterator[None]:
        self._free.release()
        try:
            yield
        finally:
            self._free.acquire()


@contextmanager
def without_place() -> Iterator[None]:
    """Give up the place of the present request, if it has one, while it waits for somebody else."""
    places = _place.get()
    if places is None:
        yield
        return
    token = _place.set(None)  # a wait within this one has none to give up
    try:
        with places.without():
            yield
    finally:
        _place.reset(token)


def pause(seconds: float) -> None:
    """Sleep without a place."""
    with without_place():
        time.sleep(seconds)
