"""A rate limiter with reservations: `reserve` returns the seconds until the next slot.

A limiter without reservations leaves it to chance who gets a slot. Of many clients that retry, some
never get one. It counts in this process, because the library's own counting costs a third of a hot
request and a timer thread.
"""

import time
from typing import Self
from uuid import UUID

from cachetools import LRUCache

from app.concurrency.gevent import leaf_lock
from app.settings.declarations import Limit

_SUBJECTS = 10_000  # the subjects that reserved last
_NOTHING = 1e-6  # seconds; the rounding error of adding fractions


class TokenBucket:
    """At most `rate` in a second for each subject, with a burst of `burst` seconds' worth."""

    def __init__(self, rate: float, burst: float) -> None:
        self._apart = 1 / rate
        self._burst = burst
        # Used until then at an even rate; in the future after a burst. Lists, because setting an
        # item of the cache would cost as much as the rest.
        self._used_until: LRUCache[UUID, list[float]] = LRUCache(_SUBJECTS)
        self._lock = leaf_lock()

    @classmethod
    def of(cls, limit: Limit) -> Self:
        return cls(limit.amount, limit.burst)

    def reserve(self, subject: UUID, *, patience: float = 0.0, cost: float = 1) -> float:
        """Reserve the next slot, and return the seconds until then.

        It is not reserved if the wait is longer than `patience`. `cost`: in the unit of `rate`. It
        counts from the next reservation on, so the first one never waits.
        """
        now = time.monotonic()
        with self._lock:
            used = self._used_until.get(subject)
            if used is None:
                used = self._used_until[subject] = [now]
            until = max(now, used[0]) + cost * self._apart
            wait = until - self._burst - now
            if wait <= _NOTHING:
                wait = 0.0
            if wait <= patience:
                used[0] = until
            return wait
