"""Rate limits: how often a key may ask for credentials, and a tenant may have roles tried.

They keep one caller from using up what all share: AWS gives an account some 600 STS calls a second and doesn't raise
that. Every process counts in its own memory; with a shared cache, all processes count together too. Asking that for
each request would cost more than the request, so a process takes several admissions at once and uses them up.
"""

import math
import threading
import time
from uuid import UUID

from cachetools import TTLCache
from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.access import Caller
from app.config import Config
from app.errors import RateLimitedError
from app.shared_cache import SharedCache

_PORTIONS = 20  # of a limit: what a process takes at once is one of them


class Rates:
    """Each method counts one attempt, or raises RateLimitedError and counts nothing."""

    def __init__(self, config: Config, shared: SharedCache | None) -> None:
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = None if shared is None else _Shared(config.cache_url or "", shared)
        self._issue = RateLimitItemPerSecond(config.issue_rate, namespace="issue")
        self._attempt = RateLimitItemPerMinute(config.connection_rate, namespace="attempt")

    def issue(self, caller: Caller) -> None:
        """One request for credentials with this key, ISSUE_RATE a second at most."""
        self._count(self._issue, caller.key_id.hex, "This API key asks for credentials too often")

    def attempt(self, caller: Caller, tenant_id: UUID) -> None:
        """One role to be tried for this tenant, CONNECTION_RATE a minute at most: it costs AWS calls, and a scanner many."""
        if caller.tenant_id not in {None, tenant_id}:
            return  # it will be told that there is no such tenant, and must not use up what that tenant has
        self._count(self._attempt, tenant_id.hex, "Roles of this tenant are tried too often")

    def _count(self, limit: RateLimitItem, who: str, what: str) -> None:
        if not self._own.hit(limit, who):
            wait = self._own.get_window_stats(limit, who).reset_time - time.time()
        elif self._shared is not None and not self._shared.hit(limit, who):
            wait = 0.0  # not known, and not worth asking for
        else:
            return
        raise RateLimitedError(
            f"{what}: {limit.amount} per {limit.GRANULARITY.name} at most.",
            retry_after=max(1, math.ceil(wait)),
        )


class _Shared:
    """The limits of a whole deployment, in portions. While the cache is away, everybody is admitted here."""

    def __init__(self, url: str, cache: SharedCache) -> None:
        self._cache = cache
        storage = RedisStorage(url, connection_pool=cache.client.connection_pool, key_prefix="deputy:rate")
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        # What is left of a portion, for one second: then the window in which it was taken is over.
        self._left: TTLCache[tuple[str, str], int] = TTLCache(maxsize=10_000, ttl=1)
        self._lock = threading.Lock()

    def hit(self, limit: RateLimitItem, who: str) -> bool:
        name = (limit.namespace, who)
        with self._lock:
            left = self._left.get(name, 0)
            if left:
                self._left[name] = left - 1
                return True
        portion = max(1, limit.amount // _PORTIONS) if limit.get_expiry() == 1 else 1
        taken = self._cache.ask(lambda: self._limiter.hit(limit, who, cost=portion))
        if taken is False and portion > 1:
            portion = 1
            taken = self._cache.ask(lambda: self._limiter.hit(limit, who))
        if taken and portion > 1:
            with self._lock:
                self._left[name] = self._left.get(name, 0) + portion - 1
        return taken is not False
