"""Rate limits for all processes of a deployment together, counted in the shared cache.

Import this module only if there is a shared cache: its libraries take 10 % of a process's start-up
time.
"""

import threading
from functools import cache, partial

from cachetools import TTLCache
from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.cache.shared_cache import SharedCache
from app.settings.declarations import Limit

_PORTIONS = 20  # a process takes a twentieth of a limit at a time


@cache
def _item(limit: Limit) -> RateLimitItemPerSecond:
    return RateLimitItemPerSecond(*limit.window, namespace=limit.name)


class SharedLimits:
    """The rate limits of a whole deployment.

    Asking the cache for each request would cost more than the request. So a process takes a portion
    of a limit at a time. The library `limits` does the atomic counting in the cache. While the
    cache is unreachable, every request is accepted.
    """

    def __init__(self, url: str, cache: SharedCache) -> None:
        self._cache = cache
        storage = RedisStorage(
            url, connection_pool=cache.client.connection_pool, key_prefix="deputy:rate"
        )
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        # The unused part of each portion. It expires after a second, when its window is over.
        self._left: TTLCache[tuple[str, str], int] = TTLCache(maxsize=10_000, ttl=1)
        self._lock = threading.Lock()
        self._taking = threading.Lock()

    def hit(self, limit: Limit, subject: str) -> bool:
        """Count one request. Return False, and count nothing, if the limit is reached."""
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
        """Take a portion from the cache, and use one request of it.

        Take a single request if a whole portion is no longer free. Return False if the limit is
        reached.
        """
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
