"""A tenant's share of a web process, by the cost of its requests.

It applies to requests with keys that are bound to a tenant. Requests for credentials have limits of
their own, unless they are refused. A share has two parts:

- CPU time: each request has a price in milliseconds, and a list costs more with each row. A
  request beyond the share waits for up to a second, and is then answered or refused with 429.
  A burst of it is spread over some seconds, in which requests wait for up to two seconds.
- Places: two requests of a tenant are worked on at once, and a third waits for up to a second.

A stop (revoke, suspend, delete) has no price and is never refused. Otherwise a thief of a key could
use up the share, and so keep the tenant from revoking the key. Stops have one place of their own
for each key, and one for each tenant. They wait for each other, key by key, and other requests do
not wait for them.

The tenant of a key is kept in memory, so a flood is counted without asking the database.
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
from app.errors import AppError, RateLimitedError
from app.limits.turns import Turns

MS_PER_SECOND = 70  # a tenant's budget in each process: 7 % of its time
MS_PER_ROW = 0.25  # price of a row of a list
MS_PER_FAILED_STOP = 7.0
REFUSED_PER_SECOND = 50  # requests for credentials: some 8 %
AT_ONCE = 2
VENDORS_AT_ONCE = (
    24  # for all keys that are bound to no tenant; there are 32 connections to the database
)
BURST_SECONDS = 25
# During a burst; without it, others would wait for the whole burst, which is seconds of CPU time.
PEAK_MS_PER_SECOND = 140
_PEAK_BURST_SECONDS = 0.5
_PEAK_WAIT_SECONDS = 2.0
_REFUSED_BURST_SECONDS = 5
_WAITING = 64  # requests of one tenant that wait for a place; and as many that are held
_ALL = 1_000_000  # no limit of its own: the process's limit applies
_WAIT_SECONDS = 1.0
_KEYS = 10_000  # keys whose tenant is kept
_TENANTS = 10_000  # tenants whose places are kept
_TOO_MUCH = (
    f"Too many requests with this tenant's API keys: at most {MS_PER_SECOND} ms of CPU time per"
    " second, besides those for credentials. A list costs more with each row."
)
_TOO_MANY = "Too many requests at once; try again."
_TOO_MANY_REFUSED = (
    f"Too many refused credential requests for this tenant: at most {REFUSED_PER_SECOND} per"
    " second."
)
_TOO_MANY_AT_ONCE = (
    f"Too many requests with this tenant's API keys at once: {AT_ONCE} are worked on at a time."
)


class TenantShare:
    def __init__(self) -> None:
        self._spent = Turns(MS_PER_SECOND, BURST_SECONDS)
        self._peak = Turns(PEAK_MS_PER_SECOND, _PEAK_BURST_SECONDS)
        self._refused = Turns(REFUSED_PER_SECOND, _REFUSED_BURST_SECONDS)
        self._vendor = Places(VENDORS_AT_ONCE, _ALL)
        self._places: LRUCache[UUID, Places] = LRUCache(_TENANTS)
        self._stops: LRUCache[UUID, Places] = LRUCache(_TENANTS)
        self._held: LRUCache[UUID, Places] = LRUCache(_TENANTS)
        self._tenants: LRUCache[bytes, UUID] = LRUCache(_KEYS)
        self._lock = threading.Lock()  # around those

    @contextmanager
    def request(self, tenant_id: UUID | None, price: float) -> Iterator[None]:
        """Work on a request of this price in milliseconds.

        Raises RateLimitedError, after a pause if there is room. `tenant_id`: None for a key that is
        bound to no tenant. Such keys have no limit, but leave some of the process's database
        connections for stops.
        """
        try:
            if tenant_id is not None:
                self._spend(self._spent, tenant_id, price, _TOO_MUCH, _WAIT_SECONDS)
                self._spend(self._peak, tenant_id, price, _TOO_MUCH, _PEAK_WAIT_SECONDS)
            busy = RateLimitedError(_TOO_MANY_AT_ONCE if tenant_id else _TOO_MANY, retry_after=1)
            places = (
                self._vendor
                if tenant_id is None
                else self._of(self._places, tenant_id, AT_ONCE, _WAITING)
            )
            with places.place(None if tenant_id is None else _WAIT_SECONDS, busy):
                yield
        except RateLimitedError as refusal:
            if tenant_id is not None:
                self.hold(tenant_id, refusal)
            raise

    @contextmanager
    def stop(self, key: str, tenant_id: UUID | None) -> Iterator[None]:
        """Work on a request that revokes, suspends or deletes, key by key within a tenant.

        A request that stops nothing is charged, and held while its tenant's share is used up.
        """
        if tenant_id is None:
            yield
            return
        no_room, own = RateLimitedError(_TOO_MANY, retry_after=1), UUID(bytes=_digest(key)[:16])
        try:
            with (
                self._of(self._stops, own, 1, _ALL).place(None, no_room),
                self._of(self._stops, tenant_id, 1, _ALL).place(None, no_room),
            ):
                yield
        except AppError:
            pause(min(_WAIT_SECONDS, self.charge(tenant_id, MS_PER_FAILED_STOP)))
            raise

    def hold(self, subject: UUID, refusal: RateLimitedError) -> None:
        """Hold a request for a second before it is refused.

        A refusal costs too, and a program may retry at once. Only a limited number of a subject's
        requests is held. Others are refused at once.
        """
        with (
            suppress(RateLimitedError),
            self._of(self._held, subject, _WAITING, 0).place(0, refusal),
        ):
            pause(_WAIT_SECONDS)

    def charge(self, tenant_id: UUID | None, price: float) -> float:
        """Charge a cost that is known only afterwards, such as the rows of a list.

        Returns for how many seconds the share is used up.
        """
        if tenant_id is None:
            return 0.0
        self._peak.reserve(tenant_id, patience=math.inf, cost=price)
        return self._spent.reserve(tenant_id, patience=math.inf, cost=price)

    def admit_refusal(self, caller: Caller) -> None:
        """Count one refused request for credentials. Raises RateLimitedError."""
        if caller.tenant_id is not None:
            self._spend(self._refused, caller.tenant_id, 1, _TOO_MANY_REFUSED, _WAIT_SECONDS)

    def _spend(
        self, budget: Turns, tenant_id: UUID, price: float, refusal: str, patience: float
    ) -> None:
        wait = budget.reserve(tenant_id, patience=patience, cost=price)
        if wait > patience:
            raise RateLimitedError(refusal, retry_after=math.ceil(wait))
        if wait:
            pause(wait)

    def _of(
        self, places: LRUCache[UUID, Places], tenant_id: UUID, at_once: int, waiting: int
    ) -> Places:
        with self._lock:
            found = places.get(tenant_id)
            if found is None:
                found = places[tenant_id] = Places(at_once, waiting)
            return found

    def tenant_of(self, key: str) -> UUID | None:
        """Return the tenant that this key was bound to when it was last valid; None if unknown."""
        with self._lock:
            return self._tenants.get(_digest(key))

    def remember(self, key: str, caller: Caller) -> None:
        """Count this key for its caller's tenant from now on. A key never changes its tenant."""
        if caller.tenant_id is not None:
            with self._lock:
                self._tenants[_digest(key)] = caller.tenant_id

    def forget(self, key: str) -> None:
        """Stop counting this key, because it was revoked or has expired."""
        with self._lock:
            self._tenants.pop(_digest(key), None)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
