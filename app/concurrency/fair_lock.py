"""A lock that is handed to whoever has waited longest.

With threading's own, a thread that releases it and wants it again gets it before those that wait.
"""

import threading
from collections import deque


class FairLock:
    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()

    def acquire(self, timeout: float) -> bool:
        """Wait for the lock. False: it was not handed over within `timeout` seconds."""
        with self._lock:
            if not self._held:
                self._held = True
                return True
            handed_over = threading.Event()
            self._waiting.append(handed_over)
        if handed_over.wait(timeout):
            return True
        with self._lock:
            if handed_over.is_set():
                return True
            self._waiting.remove(handed_over)
            return False

    def release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._held = False
