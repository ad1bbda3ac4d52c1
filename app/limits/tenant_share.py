"""A tenant's share of a web process: how many requests its bound keys make, other than for credentials, and how many
requests for credentials are refused.

Each such request reads the database, so a loop without pauses would slow down issuing for all tenants. A request beyond
the share waits for a second, and is then answered or refused with 429. The tenant of a key is remembered, so that a
flood is counted without asking the database. Unbound keys are not counted. There is room for as many requests at once
as a key may be refused in a second (app/limits/refusals.py): those refusals are answered for their own reason.
"""

import hashlib
import math
import threading
import time
from uuid import UUID

from cachetools import LRUCache

from app.access.callers import Caller
from app.errors import RateLimitedError
from app.limits.rates import Limit

PER_SECOND = 10  # of a tenant, in each process: some 7 % of its time
REFUSED_PER_SECOND = 50  # requests for credentials: some 8 %
AT_ONCE = 250
_WAITING = 64  # requests that wait in a process, at most
_WAIT_SECONDS = 1.0
_KEYS = 10_000  # whose tenant is remembered
_TOO_OFTEN = (
    f"Too many requests with this tenant's API keys: at most {PER_SECOND} per second, besides those for credentials."
)
_TOO_MANY_REFUSED = f"Too many refused credential requests for this tenant: at most {REFUSED_PER_SECOND} per second."


class TenantShare:
    """Call `admit` before the key is read, and `remember` afterwards."""

    def __init__(self) -> None:
        self._requests = Limit("share", AT_ONCE, AT_ONCE // PER_SECOND, _TOO_OFTEN)
        self._refusals = Limit("refused", AT_ONCE, AT_ONCE // REFUSED_PER_SECOND, _TOO_MANY_REFUSED)
        self._tenants: LRUCache[bytes, UUID] = LRUCache(_KEYS)
        self._waiting = threading.BoundedSemaphore(_WAITING)
        self._lock = threading.Lock()  # around the tenants

    def admit(self, key: str) -> None:
        """One request with this key. Raises RateLimitedError when its tenant has used up its share."""
        with self._lock:
            tenant_id = self._tenants.get(_digest(key))
        self._take(self._requests, tenant_id)

    def admit_refusal(self, caller: Caller) -> None:
        """One request for credentials that is refused. Raises RateLimitedError as `admit` does."""
        self._take(self._refusals, caller.tenant_id)

    def _take(self, limit: Limit, tenant_id: UUID | None) -> None:
        if tenant_id is None or (wait := limit.hit(tenant_id)) == 0:
            return
        if self._waiting.acquire(blocking=False):
            try:
                time.sleep(_WAIT_SECONDS)
            finally:
                self._waiting.release()
            if (wait := limit.hit(tenant_id)) == 0:
                return
        raise RateLimitedError(limit.refusal, retry_after=math.ceil(wait))

    def remember(self, key: str, caller: Caller) -> None:
        """Count this key for its caller's tenant from now on. A key never changes its tenant."""
        if caller.tenant_id is not None:
            with self._lock:
                self._tenants[_digest(key)] = caller.tenant_id


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
