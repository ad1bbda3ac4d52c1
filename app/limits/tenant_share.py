"""A tenant's share of a web process, by what its requests cost.

It holds for requests with keys that are bound to a tenant. Requests for credentials have limits of their own, but for
those that are refused. A share has two parts:

- CPU time: each request has a price in milliseconds, and a list costs more with each row. A request beyond the share
  waits for up to a second, and is then answered or refused with 429.
- Places: two requests of a tenant are worked on at once, and a third waits for up to a second.

A stop (revoke, suspend, delete) has no price and is never refused: whoever has stolen a key could otherwise use up the
share, and so keep its tenant from revoking it. Stops have one place of their own for each tenant. So they wait for each
other, and the others of that tenant do not wait for them.

The tenant of a key is remembered, so a flood is counted without asking the database.
"""

import hashlib
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from cachetools import LRUCache

from app.access.callers import Caller
from app.concurrency.places import Places, pause
from app.errors import RateLimitedError
from app.limits.turns import Turns

MS_PER_SECOND = 70  # of a tenant's requests, in each process: 7 % of its time
MS_PER_ROW = 0.2  # of a list
REFUSED_PER_SECOND = 50  # requests for credentials: some 8 %
AT_ONCE = 2
BURST_SECONDS = 25
_REFUSED_BURST_SECONDS = 5
_WAITING = 64  # requests of one tenant that wait for a place, or for their share
_ALL = 1_000_000  # more than a process ever has
_WAIT_SECONDS = 1.0
_KEYS = 10_000  # whose tenant is remembered
_TENANTS = 10_000  # whose places are kept
_TOO_MUCH = (
    f"Too many requests with this tenant's API keys: at most {MS_PER_SECOND} ms of CPU time per second, besides those for"
    " credentials. A list costs more with each row."
)
_TOO_MANY_REFUSED = f"Too many refused credential requests for this tenant: at most {REFUSED_PER_SECOND} per second."
_TOO_MANY_AT_ONCE = f"Too many requests with this tenant's API keys at once: {AT_ONCE} are worked on at a time."


class TenantShare:
    def __init__(self) -> None:
        self._spent = Turns(MS_PER_SECOND, BURST_SECONDS)
        self._refused = Turns(REFUSED_PER_SECOND, _REFUSED_BURST_SECONDS)
        self._places: LRUCache[UUID, Places] = LRUCache(_TENANTS)
        self._stops: LRUCache[UUID, Places] = LRUCache(_TENANTS)
        self._held: LRUCache[UUID, Places] = LRUCache(_TENANTS)
        self._tenants: LRUCache[bytes, UUID] = LRUCache(_KEYS)
        self._lock = threading.Lock()  # around those

    @contextmanager
    def request(self, tenant_id: UUID | None, price: float) -> Iterator[None]:
        """Around a request of this price in milliseconds. None: a key that is bound to no tenant, which has no limit.

        Raises RateLimitedError.
        """
        if tenant_id is None:
            yield
            return
        self._spend(self._spent, tenant_id, price, _TOO_MUCH)
        places = self._of(self._places, tenant_id, AT_ONCE, _WAITING)
        with places.place(_WAIT_SECONDS, RateLimitedError(_TOO_MANY_AT_ONCE, retry_after=1)):
            yield

    @contextmanager
    def stop(self, tenant_id: UUID | None) -> Iterator[None]:
        """Around a request that revokes, suspends or deletes."""
        if tenant_id is None:
            yield
            return
        with self._of(self._stops, tenant_id, 1, _ALL).place(None, RateLimitedError(_TOO_MANY_AT_ONCE, retry_after=1)):
            yield

    @contextmanager
    def slow_refusals(self, tenant_id: UUID | None) -> Iterator[None]:
        """Around a request: holds it for a second before it is refused for a rate.

        A refusal costs some milliseconds too, and a program may ask again at once. So many are held; others are refused
        at once.
        """
        try:
            yield
        except RateLimitedError as refusal:
            if tenant_id is not None:
                with suppress(RateLimitedError), self._of(self._held, tenant_id, _WAITING, 0).place(0, refusal):
                    pause(_WAIT_SECONDS)
            raise

    def charge(self, tenant_id: UUID | None, price: float) -> None:
        """Charge what is known only afterwards, as the rows of a list. The tenant's next requests wait for it."""
        if tenant_id is not None:
            self._spent.reserve(tenant_id, patience=math.inf, cost=price)

    def admit_refusal(self, caller: Caller) -> None:
        """One request for credentials that is refused. Raises RateLimitedError."""
        if caller.tenant_id is not None:
            self._spend(self._refused, caller.tenant_id, 1, _TOO_MANY_REFUSED)

    def _spend(self, budget: Turns, tenant_id: UUID, price: float, refusal: str) -> None:
        wait = budget.reserve(tenant_id, patience=_WAIT_SECONDS, cost=price)
        if wait > _WAIT_SECONDS:
            raise RateLimitedError(refusal, retry_after=math.ceil(wait))
        if wait:
            pause(wait)

    def _of(self, places: LRUCache[UUID, Places], tenant_id: UUID, at_once: int, waiting: int) -> Places:
        with self._lock:
            found = places.get(tenant_id)
            if found is None:
                found = places[tenant_id] = Places(at_once, waiting)
            return found

    def tenant_of(self, key: str) -> UUID | None:
        """The tenant that this key was bound to when it was last good; None if it is not known."""
        with self._lock:
            return self._tenants.get(_digest(key))

    def remember(self, key: str, caller: Caller) -> None:
        """Count this key for its caller's tenant from now on. A key never changes its tenant."""
        if caller.tenant_id is not None:
            with self._lock:
                self._tenants[_digest(key)] = caller.tenant_id

    def forget(self, key: str) -> None:
        """Count this key no longer: it was revoked, or has expired."""
        with self._lock:
            self._tenants.pop(_digest(key), None)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
