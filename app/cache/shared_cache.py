"""The shared cache (Redis or Valkey, if configured) for values and counts of all processes.

Values may be lost at any time. While the cache is unavailable, its methods return what an empty
cache would return. The process logs once that the cache is lost, and once that it is back.

Import this module only if there is a shared cache: its libraries take 10 % of a process's start-up
time.
"""

import secrets
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from typing import TypeVar, cast

import redis
from cachetools import TTLCache
from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.log import logger

_ANSWER_SECONDS = 0.25  # timeout; a slower cache costs more than it saves
_LEAVE_ALONE_SECONDS = 2.0  # pause after a failure, before the next call
_POOL = 256  # connections; with more calls at once, the cache counts as lost for a while
# Deletes the lock only if its value is this process's token. The lock may have expired, and another
# process may hold it now.
_UNLOCK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"

_PORTIONS = 20  # a process takes a twentieth of a rate limit at a time
# Locks for the requests that take portions. With one lock, all tenants would wait for one call
# after the other.
_TAKERS = 256

Answer = TypeVar("Answer")


@cache
def _item(limit: str, window: tuple[int, int]) -> RateLimitItemPerSecond:
    return RateLimitItemPerSecond(*window, namespace=limit)


class SharedCache:
    """Small values and locks, each with an expiry, and the counts of rate limits.

    While the cache is unavailable, no value is found, no lock is free, and no limit is reached. No
    method raises.
    """

    def __init__(self, url: str) -> None:
        # socket_timeout also limits the time to connect
        self.client = redis.Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), max_connections=_POOL, socket_timeout=_ANSWER_SECONDS
        )
        self._unlock = self.client.register_script(_UNLOCK)
        self.away = False
        self._refuses = False  # True: the cache answers, but refused a write; it may be full
        self._changes = 0  # how often `away` changed
        self._ask_again_at = 0.0
        self._limiter = SlidingWindowCounterRateLimiter(
            RedisStorage(url, connection_pool=self.client.connection_pool, key_prefix="deputy:rate")
        )
        # The unused part of each portion. It expires after a second, when its window is over.
        self._left: TTLCache[tuple[str, str], int] = TTLCache(maxsize=10_000, ttl=1)
        self._lock = threading.Lock()
        self._taking = [threading.Lock() for _ in range(_TAKERS)]

    def ask(self, call: Callable[[], Answer], *, writes: bool = False) -> Answer | None:
        """Return the result of `call`, or None while the cache is unavailable.

        `call` must use this object's client. After a refused write, only a successful write makes
        the cache available again, because a full cache still answers reads. `writes`: whether the
        call is a write.
        """
        if time.monotonic() < self._ask_again_at:
            return None
        changes = self._changes
        try:
            answer = call()
        except (redis.RedisError, OSError) as error:
            if isinstance(error, redis.ReadOnlyError):  # a replica, after a failover
                # Only those that nobody uses: a call would fail on a closed connection
                self.client.connection_pool.disconnect(inuse_connections=False)
            self._note(changes, error)
            self._refuses = writes and isinstance(error, redis.ResponseError)
            return None
        if self.away and (writes or not self._refuses):
            self._note(changes, None)
        return answer

    def _note(self, changes: int, error: Exception | None) -> None:
        """Note that the cache is unavailable (after an error) or available again (None).

        A result is ignored if its call began before the last change, because it is out of date.
        """
        with self._lock:
            if changes != self._changes:
                return
            if error:
                self._ask_again_at = time.monotonic() + _LEAVE_ALONE_SECONDS
            if self.away is bool(error):
                return
            self.away, self._changes = bool(error), changes + 1
        if error:
            logger.warning("cache.lost", error=type(error).__name__)
        else:
            logger.info("cache.back")

    def get(self, name: str) -> bytes | None:
        return self.ask(lambda: cast("bytes | None", self.client.get(name)))

    def put(self, name: str, value: bytes, seconds: float) -> None:
        self.ask(lambda: self.client.set(name, value, px=max(1, int(seconds * 1000))), writes=True)

    def forget(self, name: str) -> None:
        self.ask(lambda: self.client.delete(name))

    def lock(self, name: str, seconds: float) -> str | None:
        """Take a lock, and return a token for `unlock`.

        Return None if another process holds the lock, or if the cache is unavailable.
        """
        token = secrets.token_hex(8)
        taken = self.ask(
            lambda: self.client.set(name, token, nx=True, px=int(seconds * 1000)), writes=True
        )
        return token if taken else None

    def unlock(self, name: str, token: str) -> None:
        self.ask(lambda: self._unlock(keys=[name], args=[token]))

    def hit(self, limit: str, window: tuple[int, int], subject: str) -> bool:
        """Count one request. Return False, and count nothing, if the limit is reached.

        `window`: the maximum of requests, and the number of seconds. Asking the cache for each
        request would cost more than the request. So a process takes a portion of a limit at a time.
        The library `limits` does the atomic counting in the cache.
        """
        if self._use_one(limit, subject):
            return True
        # Requests of a subject that arrive together share one portion
        with self._taking[hash((limit, subject)) % _TAKERS]:
            return self._use_one(limit, subject) or self._take(limit, window, subject)

    def _use_one(self, limit: str, subject: str) -> bool:
        with self._lock:
            left = self._left.get((limit, subject), 0)
            if left:
                self._left[limit, subject] = left - 1
        return left > 0

    def _take(self, limit: str, window: tuple[int, int], subject: str) -> bool:
        """Take a portion from the cache, and use one request of it.

        Take a single request if a whole portion is no longer free, or if the window is longer than
        portions are kept: many processes would lose what they did not use. Return False if the
        limit is reached.
        """
        item = _item(limit, window)
        whole = item.amount // _PORTIONS if item.multiples == 1 else 1
        for portion in dict.fromkeys((max(1, whole), 1)):
            hit = partial(self._limiter.hit, item, subject, cost=portion)
            taken = self.ask(hit, writes=True)
            if taken is None:  # the cache is unreachable
                return True
            if taken:
                with self._lock:
                    self._left[limit, subject] = self._left.get((limit, subject), 0) + portion - 1
                return True
        return False
