"""Single flight: requests that want the same thing at the same moment share one call for it.

For each key there is no call, or one that is running. The first request starts it, and those that
come while it runs join it. A call that has ended, or that was abandoned, is joined by no further
request: the next one starts another.
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
        """Returns the running call and False, or starts `work` and returns it and True.

        Before this, the request may have missed the end of an earlier call: `work` looks for its
        result first.
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
            # In a copy of the context: its log lines name the request that started it.
            call = self._running[key] = spawn(copy_context().run, run)
            return call, True

    def abandon(self, key: Key, call: "Future[Result]") -> None:
        """Lets the next request start a call of its own; those that have joined this one go on
        waiting.
        """
        with self._lock:
            self._remove(key, call)

    def _remove(self, key: Key, call: "Future[Result]") -> None:
        if self._running.get(key) is call:
            del self._running[key]
