"""Rate limits per second: requests for credentials, requests to onboarding pages, and calls to STS.

They keep one caller from using up what all share: AWS allows an account some 600 STS calls a
second, and does not raise that. Each process counts in memory. With a shared cache, all processes
count together too. Asking the cache for each request would cost more than the request, so a process
takes a portion of a limit at once. Rarer requests are counted in the database
(app/limits/quotas.py).

This module counts in memory itself, because the library's own counting costs a third of a hot
request and a timer thread. The counting that must be atomic among processes is the library's.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from cachetools import LRUCache

from app.access.callers import Caller
from app.concurrency.gevent import leaf_lock
from app.config import Config
from app.errors import RateLimitedError
from app.limits.sliding_window import SlidingWindow, Uses
from app.limits.turns import Turns

if TYPE_CHECKING:
    from app.limits.shared import SharedLimits

# Requests to onboarding pages per second. One takes up to 20 ms of a web process, and an open page
# sends one every three seconds. So thirty open pages of a tenant are within the limit, and they
# take a fifth of one process.
PAGE_RATE = 5  # requests to one link's page
TENANT_PAGE_RATE = 10  # requests to the pages of all links of a tenant
_PAGE_BURST = 2  # seconds of PAGE_RATE that may come at once
_PAGE_TOO_OFTEN = f"Too many requests for this page: at most {PAGE_RATE} per second."
_PAGES_TOO_OFTEN = f"Too many requests for your pages: at most {TENANT_PAGE_RATE} per second."
_TOO_MANY_NEW = (
    "Too many new sessions for this tenant: at most {} per second. Sessions that were handed out"
    " can be used until they expire."
)
_EVERYBODY = UUID(int=0)  # the one subject of the limit on background calls
_PAUSE = 0.1  # seconds until the next attempt, if it is unknown when there will be room
_SUBJECTS = 10_000  # subjects of a limit, the most recently counted
_MISS_BURST = 5  # seconds of TENANT_MISS_RATE that may come at once
_TURN_SECONDS = 0.8  # longest wait of a call for its slot; its request has about 1.5 s
_HELD = 64  # calls that wait for their slot in a process; each occupies a place for requests
_HELD_PAGES = 32  # requests to pages that wait for their slot


class Rates:
    """Each method counts one. For a caller it raises RateLimitedError. A background call waits."""

    def __init__(self, config: Config, shared: "SharedLimits | None") -> None:
        self._shared = shared
        issue, tenant, miss = config.issue_rate, config.tenant_issue_rate, config.tenant_miss_rate
        self._key = Limit(
            "issue",
            issue,
            1,
            f"Too many credential requests with this key: at most {issue} per second.",
        )
        self._tenant = Limit(
            "tenant",
            tenant,
            1,
            f"Too many credential requests for this tenant: at most {tenant} per second.",
        )
        self._miss = SlidingWindow(miss * _MISS_BURST, _MISS_BURST, "miss")
        self._miss_turns, self._held = Turns(miss, _MISS_BURST), threading.BoundedSemaphore(_HELD)
        self._too_many_new = _TOO_MANY_NEW.format(miss)
        self._page, self._pages = (
            SlidingWindow(PAGE_RATE * 2, 2, "page"),
            SlidingWindow(TENANT_PAGE_RATE, 1, "pages"),
        )
        self._page_turns, self._pages_turns = (
            Turns(PAGE_RATE, _PAGE_BURST),
            Turns(TENANT_PAGE_RATE, 1),
        )
        self._held_pages = threading.BoundedSemaphore(_HELD_PAGES)
        self._sts = _Budget("sts", config.sts_budget)
        self._routine = _Budget("routine", max(1, config.sts_budget // 2))

    def admit_page(self, link_id: UUID, tenant_id: UUID | None) -> None:
        """Count one request to the page of this onboarding link.

        The limits are PAGE_RATE a second for the link, and TENANT_PAGE_RATE for its tenant. Beyond
        the tenant's rate a request waits for the next slot, if that is soon: a burst is spread over
        the second. `tenant_id`: None for a link that opens no page.
        """
        self._admit_page(
            self._page, link_id, self._page_turns.reserve(link_id, patience=0.0), _PAGE_TOO_OFTEN
        )
        if tenant_id is None:
            return
        wait = _in_turn(self._pages_turns, tenant_id, self._held_pages)
        self._admit_page(self._pages, tenant_id, wait, _PAGES_TOO_OFTEN)

    def _admit_page(self, window: SlidingWindow, who: UUID, wait: float, refusal: str) -> None:
        if wait == 0 and self._shared is not None and not self._shared.hit(window, who.hex):
            wait = 1.0
        if wait:
            raise RateLimitedError(refusal, retry_after=max(1, math.ceil(wait)))

    def admit_issuance(self, caller: Caller, tenant_id: UUID) -> None:
        """Count one request for credentials.

        The limits are ISSUE_RATE a second with this key, and TENANT_ISSUE_RATE a second for this
        tenant. A bound key that names another tenant counts for its own tenant: it is refused
        later, which costs as well.
        """
        self._admit(self._key, caller.key_id)
        self._admit(self._tenant, caller.tenant_id or tenant_id)

    def admit_session(self, tenant_id: UUID) -> None:
        """Count one call to STS for a session of this tenant's.

        The limit is TENANT_MISS_RATE a second, with a burst of five seconds' worth. AWS gives the
        account some 600 calls a second for all tenants together. Each new session policy needs a
        call. Beyond the burst a call waits for the next slot, if that is soon. A nightly run over a
        thousand accounts with some tens of requests at once must not be refused.
        """
        wait = _in_turn(self._miss_turns, tenant_id, self._held)
        if (
            wait == 0
            and self._shared is not None
            and not self._shared.hit(self._miss, tenant_id.hex)
        ):
            # The wait is unknown. A process that has used up the burst leaves the others little for
            # some seconds.
            wait = 2.0
        if wait:
            raise RateLimitedError(self._too_many_new, retry_after=max(1, math.ceil(wait)))

    def _admit(self, limit: "Limit", who: UUID) -> None:
        """Count one. Raises RateLimitedError."""
        wait = limit.hit(who)
        if wait == 0 and self._shared is not None and not self._shared.hit(limit.window, who.hex):
            wait = 1.0  # unknown; asking the cache for it would cost too much
        if wait:
            raise RateLimitedError(limit.refusal, retry_after=max(1, math.ceil(wait)))

    def background_call(self) -> AbstractContextManager[None]:
        """Wrap one call to STS for a background proof: wait until STS_BUDGET has room for it."""
        return self._within(self._sts)

    @contextmanager
    def routine_call(self) -> Iterator[None]:
        """Wrap one call to STS for a routine proof; all of those get at most half of STS_BUDGET."""
        with self._within(self._routine), self._within(self._sts):
            yield

    @contextmanager
    def _within(self, budget: "_Budget") -> Iterator[None]:
        while self._shared is not None and not self._shared.hit(budget.window, _EVERYBODY.hex):
            time.sleep(_PAUSE)
        with budget.of_process.call():
            yield


def _in_turn(turns: Turns, subject: UUID, held: threading.BoundedSemaphore) -> float:
    """Wait for the subject's next slot and return 0.

    If the slot is not soon, return the seconds until it.
    """
    wait = turns.reserve(subject, patience=0.0)
    if wait and held.acquire(blocking=False):
        try:
            wait = turns.reserve(subject, patience=_TURN_SECONDS)
            if wait <= _TURN_SECONDS:
                time.sleep(wait)
                wait = 0.0
        finally:
            held.release()
    return wait


class CallBudget:
    """At most `most` calls in any second, as AWS counts them.

    AWS may count a call at any moment between its beginning and its end. So a call takes a place
    when it begins, and returns it one second after it has ended.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way = 0
        self._ends: deque[float] = deque()  # ends of the calls that ended during the last second
        self._lock = threading.Lock()

    @contextmanager
    def call(self) -> Iterator[None]:
        while wait := self._begin():
            time.sleep(wait)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                self._ends.append(time.monotonic())

    def _begin(self) -> float:
        """Take a place and return 0; or return the seconds until there may be one."""
        with self._lock:
            over = time.monotonic() - 1
            while self._ends and self._ends[0] <= over:
                self._ends.popleft()
            if self._under_way + len(self._ends) < self._most:
                self._under_way += 1
                return 0.0
            return self._ends[0] - over if self._ends else _PAUSE


class _Budget:
    """Calls to STS in a second: those of this process, and of all processes with a shared cache."""

    def __init__(self, name: str, most: int) -> None:
        self.window = SlidingWindow(most, 1, name)
        self.of_process = CallBudget(most)


class Limit:
    """At most `amount` in `seconds` for each subject: in this process, and in the shared cache."""

    def __init__(self, name: str, amount: int, seconds: int, refusal: str = "") -> None:
        self.refusal = refusal
        self.window = SlidingWindow(amount, seconds, name)
        self._uses: LRUCache[UUID, Uses] = LRUCache(_SUBJECTS)
        self._lock = leaf_lock()

    def hit(self, subject: UUID) -> float:
        """Count one in this process and return 0; or return how many seconds to wait.

        In the second case nothing is counted.
        """
        at = time.monotonic()
        with self._lock:
            uses = self._uses.get(subject)
            if uses is None:
                uses = self._uses[subject] = Uses()
            return self.window.count(uses, at)
