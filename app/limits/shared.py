"""Limits that all processes of a deployment keep together, counted in the shared cache.

It is imported only where there is a cache: the libraries would take a tenth of every process's
start.
"""

import threading
from functools import cache, partial

from cachetools import TTLCache
from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.cache.shared_cache import SharedCache
from app.settings.declarations import Limit

_PORTIONS = 20  # portions of a limit; a process takes one at a time


@cache
def _item(limit: Limit) -> RateLimitItemPerSecond:
    return RateLimitItemPerSecond(*limit.window, namespace=limit.name)


class SharedLimits:
    """The limits of a whole deployment, in portions.

    While the cache is unreachable, every request is accepted.
    """

    def __init__(self, url: str, cache: SharedCache) -> None:
        self._cache = cache
        storage = RedisStorage(
            url, connection_pool=cache.client.connection_pool, key_prefix="deputy:rate"
        )
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        # The rest of a portion. It lasts one second: then the window in which it was taken is over.
        self._left: TTLCache[tuple[str, str], int] = TTLCache(maxsize=10_000, ttl=1)
        self._lock = threading.Lock()
        self._taking = threading.Lock()

    def hit(self, limit: Limit, subject: str) -> bool:
        """Count one, and return whether there was room for it."""
        name = (limit.name, subject)
        if self._use_one(name):
            return True
        with self._taking:  # requests that arrive together share one portion
            return self._use_one(name) or self._take(limit, name)

    def _use_one(self, name: tuple[str, str]) -> bool:
        with self._lock:
            left = self._left.get(name, 0)
            if left:
                self._left[name] = left - 1
        return left > 0

    def _take(self, limit: Limit, name: tuple[str, str]) -> bool:
        """Take a portion, or at least one, and use one of it. Return whether there was room."""
        item = _item(limit)
        for portion in dict.fromkeys((max(1, item.amount // _PORTIONS), 1)):
            hit = partial(self._limiter.hit, item, name[1], cost=portion)
            taken = self._cache.ask(hit, writes=True)
            if taken is None:  # the cache is unreachable
                return True
            if taken:
                with self._lock:
                    self._left[name] = self._left.get(name, 0) + portion - 1
                return True
        return False
