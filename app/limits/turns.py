"""A rate limiter with reservations: `reserve` returns the seconds until the caller's slot.

Limiters that refuse (app/limits/rates.py) leave it to chance who gets a slot. Of many callers that
retry, some never get one.
"""

import threading
import time
from uuid import UUID

from cachetools import LRUCache

_SUBJECTS = 10_000  # the subjects that reserved last
_NOTHING = 1e-6  # seconds; the rounding error of adding fractions


class Turns:
    """At most `rate` in a second for each subject, with a burst of `burst` seconds' worth.

    It counts in this process.
    """

    def __init__(self, rate: int, burst: float) -> None:
        self._apart = 1 / rate
        self._burst = burst
        # At an even rate; in the future after a burst
        self._used_until: LRUCache[UUID, float] = LRUCache(_SUBJECTS)
        self._lock = threading.Lock()

    def reserve(self, subject: UUID, *, patience: float, cost: float = 1) -> float:
        """Reserve the next slot, and return the seconds until then.

        It is not reserved if the wait is longer than `patience`. `cost`: in the unit of `rate`. It
        counts from the next reservation on, so the first one never waits.
        """
        at = time.monotonic()
        with self._lock:
            until = max(at, self._used_until.get(subject, 0.0)) + cost * self._apart
            wait = until - self._burst - at
            wait = wait if wait > _NOTHING else 0.0
            if wait <= patience:
                self._used_until[subject] = until
            return wait
