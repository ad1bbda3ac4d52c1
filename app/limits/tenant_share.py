"""A tenant's share of the web processes: how many requests its bound keys make, other than for credentials.

Each such request reads the database, so a program that asks without a pause would slow down issuing for everybody. One
beyond the share waits for a second and is then answered, or refused with 429: a loop is slowed down, whatever it makes
of the answers. What is counted is known before the database is asked, as a flood must cost little. Keys that are bound
to no tenant are not counted.
"""

import hashlib
import threading
import time
from uuid import UUID

from cachetools import LRUCache

from app.access.callers import Caller
from app.errors import RateLimitedError
from app.limits.rates import Limit

PER_SECOND = 50  # of a tenant, in each process
_BURST = 4  # seconds of that which may come at once
_HELD = 64  # requests that wait in a process, at most
_HOLD_SECONDS = 1.0
_KEYS = 10_000  # whose tenant is known


class Turns:
    """`take` before the key is read, `took` afterwards."""

    def __init__(self) -> None:
        self._limit = Limit("share", PER_SECOND * _BURST, _BURST)
        self._tenants: LRUCache[bytes, UUID] = LRUCache(_KEYS)
        self._held = threading.BoundedSemaphore(_HELD)
        self._lock = threading.Lock()  # around the tenants

    def take(self, key: str) -> None:
        """One request with this key. Raises RateLimitedError when its tenant has used up its share."""
        with self._lock:
            tenant_id = self._tenants.get(_name(key))
        if tenant_id is not None:
            self._take(tenant_id)

    def took(self, key: str, caller: Caller) -> None:
        """Whose key that was: counted from now on. A key stays bound to its tenant for as long as it lives."""
        if caller.tenant_id is not None:
            with self._lock:
                self._tenants[_name(key)] = caller.tenant_id

    def _take(self, tenant_id: UUID) -> None:
        if self._limit.hit(tenant_id) == 0:
            return
        if self._held.acquire(blocking=False):
            try:
                time.sleep(_HOLD_SECONDS)
            finally:
                self._held.release()
            if self._limit.hit(tenant_id) == 0:
                return
        raise RateLimitedError(
            f"This tenant's API keys ask too often: {PER_SECOND} requests per second at most, besides those for"
            " credentials.",
            retry_after=1,
        )


def _name(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
