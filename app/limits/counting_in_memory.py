"""Rate limits per second: requests for credentials, requests to onboarding pages, and calls to STS.

They keep one principal from using up what all principals share. Each process counts in memory. If
there is a shared cache, the processes also count together in it (app/cache/shared_cache.py). Rare
requests are counted in the database instead (app/limits/counting_in_database.py).
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self
from uuid import UUID

from cachetools import LRUCache

from app.concurrency.gevent import leaf_lock
from app.concurrency.places import pause
from app.config import Config
from app.identity.principals import ApiKeyPrincipal
from app.limits import limits
from app.settings.setting_types import Limit

if TYPE_CHECKING:
    from app.cache.shared_cache import SharedCache

_SUBJECTS = 10_000  # maximum of subjects that a bucket keeps in memory
_NOTHING = 1e-6  # seconds; shorter waits are rounding errors
_EVERYBODY = "everybody"  # the only subject of a limit on calls in the background
_PAUSE = 0.1  # seconds until the next attempt, if the exact time is unknown


class Rates:
    """The rate limits.

    An `acquire` method counts one request or call, and raises RateLimitedError beyond the limit. A
    call in the background waits instead.
    """

    def __init__(self, config: Config, shared: "SharedCache | None") -> None:
        def rate(limit: Limit) -> Rate:
            return Rate(limit.with_setting(config), shared)

        self._key = rate(limits.CREDENTIALS_OF_KEY)
        self._tenant = rate(limits.CREDENTIALS_OF_TENANT)
        self._sessions = rate(limits.NEW_SESSIONS)
        self._page, self._pages = rate(limits.PAGE), rate(limits.PAGES)
        self._sts = CallBudget(limits.BACKGROUND_CALLS.with_setting(config), shared)
        self._routine = CallBudget(limits.ROUTINE_CALLS.with_setting(config), shared)
        # Wraps one call to STS for a background proof, which waits until STS_BUDGET has room
        self.background_call = self._sts.call

    def acquire_page(self, link_id: UUID, tenant_id: UUID | None) -> None:
        """Count one request to the page of this onboarding link.

        A request beyond the tenant's rate waits for the next slot if that is soon, so a burst is
        spread over the second. `tenant_id`: None if the link opens no page.
        """
        self._page.acquire(link_id)
        if tenant_id is not None:
            self._pages.acquire(tenant_id)

    def acquire_issuance(self, principal: ApiKeyPrincipal, tenant_id: UUID) -> None:
        """Count one request for credentials, for its key and for its tenant.

        A request with a bound key counts for the key's tenant, even if it names another tenant.
        Its refusal costs time as well.
        """
        self._key.acquire(principal.key_id)
        self._tenant.acquire(principal.tenant_scope or tenant_id)

    def acquire_session(self, tenant_id: UUID) -> None:
        """Count one call to STS for a session of one of this tenant's roles.

        A client can cause many calls, because each new session policy needs one. A call beyond the
        burst waits for the next slot if that is soon. Otherwise a nightly run over a thousand
        accounts, with some tens of requests at once, would be refused.
        """
        self._sessions.acquire(tenant_id)

    @contextmanager
    def routine_call(self) -> Iterator[None]:
        """Wrap one call to STS for a routine proof.

        The call waits for room in the routine proofs' share and in the whole STS_BUDGET.
        """
        with self._routine.call(), self._sts.call():
            yield


class Rate:
    """A rate limit that is counted in this process, and in the shared cache if there is one."""

    def __init__(self, limit: Limit, shared: "SharedCache | None") -> None:
        self._limit = limit
        self._shared, self._window = shared, limit.window
        self._bucket = TokenBucket.of(limit)

    def acquire(self, subject: UUID) -> None:
        """Count one request. Wait for the next slot if it is soon; else raise RateLimitedError."""
        limit = self._limit
        self._bucket.acquire(subject, limit)
        if self._shared and not self._shared.hit(limit.name, self._window, subject.hex):
            # The exact wait is unknown, and reading it from the cache would cost too much. Another
            # process may have used up the burst, which takes seconds to recover.
            raise limit.refuse(max(1.0, limit.burst // 2))


class TokenBucket:
    """A limit of `rate` uses per second for each subject. A burst has the uses of `burst` seconds.

    `reserve` returns the seconds until the next slot. Without reservations, chance decides which of
    many retrying clients gets a slot, and some never get one. The library `limits` would count in
    memory with a timer thread, and would cost a third of the time of a frequent request.
    """

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

    def acquire(self, subject: UUID, limit: Limit, cost: float = 1) -> None:
        """Reserve the next slot, and wait for it. Raises RateLimitedError if it is not soon.

        The limit's patience also bounds how many requests of a subject wait.
        """
        wait = self.reserve(subject, patience=limit.patience, cost=cost)
        if wait > limit.patience:
            raise limit.refuse(wait)
        if wait:
            pause(wait)

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


class CallBudget:
    """A limit of calls to AWS in any second, as AWS counts them.

    It applies to this process, and to all processes together if there is a shared cache. AWS may
    count a call at any moment between its start and its end. So a call takes a place when it
    starts, and gives it back one second after its end.
    """

    def __init__(self, limit: Limit, shared: "SharedCache | None" = None) -> None:
        self._limit = limit
        self._shared = shared
        self._under_way = 0
        self._ends: deque[float] = deque()  # ends of the calls that ended during the last second
        self._lock = threading.Lock()

    @contextmanager
    def call(self) -> Iterator[None]:
        limit = self._limit
        while self._shared and not self._shared.hit(limit.name, limit.window, _EVERYBODY):
            time.sleep(_PAUSE)
        while wait := self._begin():
            time.sleep(wait)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                self._ends.append(time.monotonic())

    def _begin(self) -> float:
        """Take a place and return 0. If none is free, return the seconds until the next attempt."""
        with self._lock:
            second_ago = time.monotonic() - 1
            while self._ends and self._ends[0] <= second_ago:
                self._ends.popleft()
            if self._under_way + len(self._ends) < self._limit.amount:
                self._under_way += 1
                return 0.0
            return self._ends[0] - second_ago if self._ends else _PAUSE
