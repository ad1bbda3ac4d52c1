"""A rate limiter with reservations: `reserve` returns the seconds until the next slot.

Without reservations, chance decides which of many retrying clients gets a slot, and some never get
one. This limiter counts in memory. The library `limits` would do that with a timer thread, and
would cost a third of the time of a frequent request.
"""

import time
from typing import Self
from uuid import UUID

from cachetools import LRUCache

from app.concurrency.gevent import leaf_lock
from app.settings.declarations import Limit

_SUBJECTS = 10_000  # maximum of subjects that are kept in memory
_NOTHING = 1e-6  # seconds; shorter waits are rounding errors


class TokenBucket:
    """A limit of `rate` per second for each subject. The uses of `burst` seconds may be at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._apart = 1 / rate
        self._burst = burst
        # The time at which the subject's uses would end if they came at an even rate. After a burst
        # it is in the future. Each time is in a list of its own, because assigning an item of the
        # LRUCache would cost as much as all the rest.
        self._used_until: LRUCache[UUID, list[float]] = LRUCache(_SUBJECTS)
        self._lock = leaf_lock()

    @classmethod
    def of(cls, limit: Limit) -> Self:
        return cls(limit.amount, limit.burst)

    def reserve(self, subject: UUID, *, patience: float = 0.0, cost: float = 1) -> float:
        """Reserve the next slot, and return the seconds until then.

        The slot is not reserved if the wait is longer than `patience`. `cost`: in the unit of
        `rate`.
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
