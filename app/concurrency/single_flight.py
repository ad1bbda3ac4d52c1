"""Single flight: requests that need the same result at the same moment share one call for it.

Each key has no call, or one that is running. The first request starts it, and requests that come
while it runs join it. No request joins a call that has ended or that was abandoned: the next
request starts another.
"""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Generic, TypeVar

from app.concurrency.gevent import spawn

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class SingleFlight(Generic[Key, Result]):
    """Runs one call for a key at a time, beside the requests that wait for it."""

    def __init__(self) -> None:
        self._running: dict[Key, Future[Result]] = {}
        self._lock = threading.Lock()

    def join(self, key: Key, work: Callable[[], Result]) -> tuple["Future[Result]", bool]:
        """Return the running call and False, or start `work` and return its call and True.

        The request may have missed the end of an earlier call. So `work` must look for its result
        first.
        """

        def run() -> Result:
            try:
                return work()
            finally:
                with self._lock:  # `call` has its value by now
                    self._remove(key, call)

        with self._lock:
            if key in self._running:
                return self._running[key], False
            # A copy of the context, so that its log lines name the request that started it.
            call = self._running[key] = spawn(copy_context().run, run)
            return call, True

    def abandon(self, key: Key, call: "Future[Result]") -> None:
        """Let the next request start a call of its own.

        Requests that have joined this call go on waiting for it.
        """
        with self._lock:
            self._remove(key, call)

    def _remove(self, key: Key, call: "Future[Result]") -> None:
        if self._running.get(key) is call:
            del self._running[key]
