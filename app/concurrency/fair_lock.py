"""A fair lock: of the urgent requests, and then of the others, the one that waited longest gets it.

threading.Lock is not fair. A thread that releases it and acquires it again can overtake threads
that wait for it.
"""

import threading
from collections import deque
from contextvars import ContextVar

# Whether the current request comes before those that are not urgent
urgent: ContextVar[bool] = ContextVar("urgent", default=False)


class FairLock:
    """A lock that `holders` threads or greenlets can hold at the same time."""

    def __init__(self, holders: int = 1) -> None:
        self._free = holders
        self._waiting: deque[threading.Event] = deque()
        self._urgent: deque[threading.Event] = deque()
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
            if queue := self._urgent or self._waiting:
                queue.popleft().set()
            else:
                self._free += 1
