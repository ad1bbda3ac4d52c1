"""A limit on log lines about messages: strangers may send any number of messages."""

import threading
from collections.abc import Hashable

from cachetools import TTLCache


class LogLimit:
    """At most one line for each subject in a period, and at most `subjects` lines in all.

    Threads may share it.
    """

    def __init__(self, subjects: int, *, per_seconds: int) -> None:
        self._logged: TTLCache[Hashable, bool] = TTLCache(subjects, per_seconds)
        self._lock = threading.Lock()

    def acquire(self, subject: Hashable) -> bool:
        """Return whether to log a line about the subject now, and count it."""
        with self._lock:
            if subject in self._logged or len(self._logged) >= self._logged.maxsize:
                return False
            self._logged[subject] = True
            return True
