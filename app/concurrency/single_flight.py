"""Single flight: requests that need the same result at the same time share one call for it.

At most one call runs for each key. The first request starts the call, and requests that arrive
while it runs join it. When the call has ended or was abandoned, the next request starts another.
"""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from contextlib import nullcontext
from contextvars import copy_context
from typing import Generic, TypeVar

from app.concurrency.gevent import spawn
from app.concurrency.places import held_places, waiting, without_slot

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class SingleFlight(Generic[Key, Result]):
    """Runs at most one call for each key, in a thread or greenlet of the call's own."""

    def __init__(self) -> None:
        self._running: dict[Key, Future[Result]] = {}
        self._lock = threading.Lock()

    def join(self, key: Key, work: Callable[[], Result]) -> tuple["Future[Result]", bool]:
        """Join the call that is running for this key, or start `work` as a new call.

        Return the call, and True if it is new. An earlier call may have ended just before. So
        `work` must first look whether the result is already there.
        """

        def run() -> Result:
            try:
                return work()
            finally:
                with self._lock:  # `call` is assigned under this lock
                    self._remove(key, call)

        with self._lock:
            if key in self._running:
                return self._running[key], False
            # The call runs in a copy of the context, so that its log lines have the id of the
            # request that started it. The call may outlast that request, so it must not give up
            # its places or its slot.
            context = copy_context()
            context.run(held_places.set, ())
            context.run(without_slot.set, nullcontext)
            call = self._running[key] = spawn(context.run, run)
            return call, True

    def abandon(self, key: Key, call: "Future[Result]") -> None:
        """Let the next request for this key start a new call.

        Requests that have joined this call still wait for it.
        """
        with self._lock:
            self._remove(key, call)

    def _remove(self, key: Key, call: "Future[Result]") -> None:
        if self._running.get(key) is call:
            del self._running[key]


def result_of(call: "Future[Result]", patience: float) -> Result:
    """Return the result of a call. Raises TimeoutError after `patience` seconds, and its errors.

    While AWS is slow, other requests need the slot, so this request gives it up.
    """
    with waiting():
        wait([call], max(0.0, patience))
    return call.result(timeout=0)
