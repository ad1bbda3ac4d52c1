"""Places: a limited number of requests are processed at once, and others wait for a place.

A request gives up its places while it waits for AWS or for the rest of its body. So only requests
that use this process's time have places. While a request waits for a place, it also gives up its
slot. A web process has 256 slots for the requests of all tenants (app/http/sockets.py). When it has
too many connections, it closes the one that has waited longest. So requests that wait for places
leave room for new ones.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar

from app.errors import ConnectionClosedError, RateLimitedError

_TURNS = 16  # while urgent requests wait, each sixteenth turn is for another request
# Whether the current request comes before requests that are not urgent
urgent: ContextVar[bool] = ContextVar("urgent", default=False)
# The places of the current request, in the order in which it took them
held_places: ContextVar[tuple["_Place", ...]] = ContextVar("held_places", default=())
# Gives up the slot of the current request while a `with` block waits. It raises TimeoutError into
# the block when the web process closes this connection, because it has too many.
without_slot: ContextVar[Callable[[], AbstractContextManager[None]]] = ContextVar(
    "without_slot", default=nullcontext
)


class FairLock:
    """A lock that `holders` threads or greenlets can hold at the same time.

    Urgent requests usually come first. Among equals, the one that has waited longest comes first.
    threading.Lock is not fair: a thread that releases it and acquires it again can overtake threads
    that wait for it.
    """

    def __init__(self, holders: int = 1) -> None:
        self._free = holders
        self._waiting: deque[threading.Event] = deque()
        self._urgent: deque[threading.Event] = deque()
        self._turns = 0
        self._lock = threading.Lock()

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for the lock, and return False if it was not acquired within `timeout` seconds."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if timeout == 0:
                return False
            handed_over = threading.Event()
            queue = self._urgent if urgent.get() else self._waiting
            queue.append(handed_over)
        try:
            handed_over.wait(timeout)
        except BaseException:  # a greenlet that is killed while it waits must not keep the lock
            if self._leave(queue, handed_over):
                self.release()
            raise
        return self._leave(queue, handed_over)

    def _leave(self, queue: deque[threading.Event], handed_over: threading.Event) -> bool:
        """Leave the queue. Return whether the lock was handed over, even after the timeout."""
        with self._lock:
            if not handed_over.is_set():
                queue.remove(handed_over)
            return handed_over.is_set()

    def release(self) -> None:
        """Hand the lock to the next request in the queue."""
        with self._lock:
            # Some turns are for the others, or urgent requests could keep them waiting for ever
            queue = self._urgent or self._waiting
            if self._urgent and self._waiting:
                self._turns += 1
                if self._turns % _TURNS == 0:
                    queue = self._waiting
            if queue:
                queue.popleft().set()
            else:
                self._free += 1


class Places:
    """A number of places (`at_once`), for which at most `waiting` requests wait."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self.free = FairLock(at_once)
        self._waiting = threading.Semaphore(waiting)

    @contextmanager
    def place(self, timeout: float | None, refusal: Callable[[], Exception]) -> Iterator[None]:
        """Hold a place while the `with` block runs.

        Raises `refusal()` when no place is free within `timeout` seconds (None: waits for ever), or
        at once when too many requests wait. Most requests are not refused, and make no error.
        """
        if not (self.free.acquire(0) or self._wait(timeout)):
            raise refusal()
        place = _Place(self.free)
        token = held_places.set((*held_places.get(), place))
        try:
            yield
        finally:
            held_places.reset(token)
            place.give_up()

    def _wait(self, timeout: float | None) -> bool:
        """Wait for a place, and return whether the request got it."""
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            return _acquire(self.free, timeout)
        finally:
            self._waiting.release()


class _Place:
    """A place that a request has, or has given up for a while."""

    def __init__(self, free: FairLock) -> None:
        self._free = free
        self._taken = True

    def give_up(self) -> None:
        if self._taken:
            self._taken = False
            self._free.release()

    def take_back(self) -> None:
        """Wait for the place again. Raises RateLimitedError without a place, as `waiting` does."""
        if not self._free.acquire(0):
            # A request that waits for a place must not keep its slot. Otherwise requests that wait
            # for places could have all slots, and those with the places wait for slots.
            _acquire(self._free, None)
        self._taken = True


@contextmanager
def without_places() -> Iterator[None]:
    """Give up the places of the current request while the `with` block waits.

    Raises RateLimitedError when the connection is closed before the request has them back.
    """
    held = held_places.get()
    token = held_places.set(())  # a nested `with` block must not give up the places again
    for place in held:
        place.give_up()
    try:
        yield
    finally:
        held_places.reset(token)
        for place in held:
            place.take_back()


def pause(seconds: float) -> None:
    """Sleep without places or a slot, as `without_places` and `rest` do."""
    with without_places():
        rest(seconds)


def rest(seconds: float) -> None:
    """Sleep without a slot, and keep the places. Return early when the connection is closed."""
    with suppress(RateLimitedError), waiting():
        time.sleep(seconds)


def _acquire(free: FairLock, timeout: float | None) -> bool:
    """Wait for a place without a slot. Raises RateLimitedError as `waiting` does."""
    is_acquired = False
    try:
        with waiting():
            is_acquired = free.acquire(timeout)
    except BaseException:  # the connection was closed, maybe just when its turn came
        if is_acquired:
            free.release()
        raise
    return is_acquired


@contextmanager
def waiting() -> Iterator[None]:
    """Give up the slot while the `with` block waits.

    Raises ConnectionClosedError when the web process has too many connections, and this one has
    waited longest. Its client gets this error, and then the connection is closed. The error is also
    raised at the end of the block, if the client has closed the connection.
    """
    try:
        with without_slot.get()():
            yield
    except TimeoutError:
        raise ConnectionClosedError(
            "Too many connections at once; try again.", retry_after=1
        ) from None
