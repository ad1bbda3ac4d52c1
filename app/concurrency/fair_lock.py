"""A fair lock: the request that has waited longest gets it, and urgent requests come first.

threading's own lock is not fair: a thread that releases it and acquires it again can pass those
that wait.
"""

import threading
from collections import deque
from contextvars import ContextVar

urgent: ContextVar[bool] = ContextVar("urgent", default=False)  # the current request's


class FairLock:
    """A lock that `holders` threads or greenlets can have at once."""

    def __init__(self, holders: int = 1) -> None:
        self._free = holders
        self._waiting: deque[threading.Event] = deque()
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
            (self._waiting.appendleft if urgent.get() else self._waiting.append)(handed_over)
        try:
            handed_over.wait(timeout)
        except BaseException:  # a greenlet that is killed must not be handed the lock
            if self._leave(handed_over):
                self.release()
            raise
        return self._leave(handed_over)

    def _leave(self, handed_over: threading.Event) -> bool:
        """Leave the queue, and return whether the lock was handed over, even at the last moment."""
        with self._lock:
            if not handed_over.is_set():
                self._waiting.remove(handed_over)
            return handed_over.is_set()

    def release(self) -> None:
        """Hand the lock to the next request in the queue."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
