"""A tenant's share of a web process, by the cost of the tenant's requests.

It applies to requests with keys that are bound to a tenant. Requests with other keys have places,
but no price. Requests for credentials have their own limits; only refused ones are counted here,
and those whose body is long or comes in chunks. A share has two parts:

- CPU time: each request has a price in milliseconds. A list costs more with each row, and a long
  body with each KiB. A request beyond the share waits for a short time, and is then answered or
  refused with 429. So a burst is spread over some seconds.
- Places: a few requests of a tenant are processed at once, and others wait for a short time.

A request that revokes, suspends or deletes is called a stop. It has no price, and is never refused.
Otherwise a thief of a key could use up the share, and so keep the tenant from revoking the key.
Stops have separate places: one for each key, and one for each tenant or some for the vendor. So
stops wait for one another, and other requests do not wait for them. Stops with keys whose stops
failed lately come last.

The tenant of a key is kept in memory, so a flood of requests is counted without the database.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from uuid import UUID

from cachetools import LRUCache, TTLCache

from app.concurrency.places import Places, held_places, pause, rest, urgent
from app.errors import RateLimitedError
from app.identity.key_text import digest_of
from app.identity.principals import ApiKeyPrincipal
from app.limits.counting_in_memory import TokenBucket
from app.limits.limits import (
    CPU_TIME,
    HELD_REFUSALS,
    NAMES_RESOLVED,
    PEAK_CPU_TIME,
    REFUSED_CREDENTIALS,
    REQUESTS,
    STOPS,
    UNKNOWN_KEYS,
    VENDOR_REQUESTS,
    VENDOR_STOPS,
)
from app.settings.setting_types import Limit

MS_PER_FAILED_STOP = 10.0
# Maximum pause after a failed stop. With a shorter pause, a client with many connections could send
# more stops.
_FAILED_STOP_SECONDS = 5.0
_KEPT_PLACES_SECONDS = 0.05  # how long a failed stop keeps its places while the share is used up
_FAILING_SECONDS = 60.0  # how long a key's stops come last after a failed stop
_HOLD_SECONDS = 1.0
_KEYS = 10_000  # maximum of keys whose tenant is kept in memory
_PLACES = 30_000  # maximum of Places objects, by limit and by tenant or key
_VENDOR = UUID(int=0)  # the subject for all keys that are bound to no tenant


class TenantShare:
    def __init__(self) -> None:
        self._spent = TokenBucket.of(CPU_TIME)
        self._peak = TokenBucket.of(PEAK_CPU_TIME)
        self._refused = TokenBucket.of(REFUSED_CREDENTIALS)
        self._places: LRUCache[tuple[str, UUID], Places] = LRUCache(_PLACES)
        self._tenants: LRUCache[bytes, UUID] = LRUCache(_KEYS)
        # The digests of keys whose stops failed lately
        self._failing: TTLCache[bytes, bool] = TTLCache(_KEYS, _FAILING_SECONDS)
        self._lock = threading.Lock()  # protects the caches

    @contextmanager
    def request(self, tenant_scope: UUID | None, price: float) -> Iterator[None]:
        """Hold a place for a request while the `with` block runs. `price`: in milliseconds.

        Raises RateLimitedError, usually after a pause (`hold`), also for one that the block raises.
        `tenant_scope`: None for the vendor's keys. They have no limit of CPU time. They share a
        limited number of places, so that stops find a free database connection.
        """
        try:
            if tenant_scope is not None:
                self._spent.acquire(tenant_scope, CPU_TIME, price)
                self._peak.acquire(tenant_scope, PEAK_CPU_TIME, price)
            limit = REQUESTS if tenant_scope else VENDOR_REQUESTS
            with self._place(limit, tenant_scope or _VENDOR):
                yield
        except RateLimitedError:
            if tenant_scope is not None:
                self.hold(tenant_scope)
            raise

    @contextmanager
    def stop(self, key: str, tenant_scope: UUID | None) -> Iterator[None]:
        """Hold the places for a stop while the `with` block runs.

        A failed stop is charged to its tenant, or to the vendor. Its request is held while this
        share is used up. If another stop of the key failed lately, the request also keeps its
        places for a moment. A client that closes its connections pays in no other way. The debt
        is limited, so that the tenant's administrator does not have to wait long after a thief's
        key was revoked.
        """
        digest, debt = digest_of(key), 0.0
        limit, subject = (STOPS, tenant_scope) if tenant_scope else (VENDOR_STOPS, _VENDOR)
        try:
            with self._place(STOPS, UUID(bytes=digest[:16])):
                # Read only now, because an earlier stop of the key may have failed meanwhile
                with self._lock:
                    is_failing = digest in self._failing
                urgent.set(not is_failing)
                with self._place(limit, subject):
                    try:
                        yield
                    except RateLimitedError:  # the connection is closed, often by its client
                        raise
                    except Exception:  # a refusal, an invalid body or a bug
                        with self._lock:
                            self._failing[digest] = True
                        debt = self._charge(subject, MS_PER_FAILED_STOP, _FAILED_STOP_SECONDS)
                        rest(min(_KEPT_PLACES_SECONDS, debt) if is_failing else 0.0)
                        raise
        except Exception:
            pause(min(_FAILED_STOP_SECONDS, debt))
            raise

    def resolving(self, subject: UUID | None) -> AbstractContextManager[None]:
        """Hold a place for the resolution of a name, which may take long.

        Raises RateLimitedError. `subject`: a tenant, an unbound key, or None for an operator.
        """
        return self._place(NAMES_RESOLVED, subject or _VENDOR)

    def looking_up(self, limit: Limit = UNKNOWN_KEYS) -> AbstractContextManager[None]:
        """Hold a place for the look-up of a key, or of a link, that this process does not know.

        Anybody may send such keys, and the look-ups must not use up the database connections.
        Raises RateLimitedError after the limit's patience without a place.
        """
        return self._place(limit, _VENDOR)

    def hold(self, subject: UUID) -> None:
        """Hold a request for a moment before it is refused.

        A refusal costs time too, and a client may retry at once. A limited number of a subject's
        requests is held at a time, and the others wait.
        """
        with suppress(RateLimitedError), self._place(HELD_REFUSALS, subject):
            rest(_HOLD_SECONDS)

    def charge(self, tenant_scope: UUID | None, price: float) -> None:
        """Charge a price that is known only afterwards: of a body, or of a list's rows."""
        if tenant_scope is not None and price:
            self._charge(tenant_scope, price, math.inf)

    def _charge(self, subject: UUID, price: float, patience: float) -> float:
        """Charge a price, unless the share is used up for more seconds than `patience`.

        Return for how many seconds the share is used up now. `price`: in milliseconds.
        """
        buckets = self._spent, self._peak
        return max(bucket.reserve(subject, patience=patience, cost=price) for bucket in buckets)

    def acquire_refusal(self, principal: ApiKeyPrincipal) -> None:
        """Count one refused request for credentials. Raises RateLimitedError after `hold`."""
        if principal.tenant_scope is None:
            return
        try:
            self._refused.acquire(principal.tenant_scope, REFUSED_CREDENTIALS)
        except RateLimitedError:
            if not held_places.get():  # `request` holds one that has places, after it gave them up
                self.hold(principal.tenant_scope)
            raise

    def _place(self, limit: Limit, subject: UUID) -> AbstractContextManager[None]:
        with self._lock:
            places = self._places.get((limit.name, subject))
            if places is None:
                places = Places(limit.amount, limit.waiting)
                self._places[limit.name, subject] = places
        timeout = None if limit.patience == math.inf else limit.patience
        return places.place(timeout, partial(limit.refuse, 1))

    def tenant_of(self, key: str) -> UUID | None:
        """Return the tenant that this key was bound to when it was last valid; None if unknown."""
        with self._lock:
            return self._tenants.get(digest_of(key))

    def remember(self, key: str, tenant_scope: UUID | None) -> None:
        """Count requests with this key for its tenant from now on.

        `tenant_scope`: None for the vendor's keys, and for a key that was revoked or has expired.
        """
        with self._lock:
            self._tenants.pop(digest_of(key), None)
            if tenant_scope is not None:
                self._tenants[digest_of(key)] = tenant_scope
