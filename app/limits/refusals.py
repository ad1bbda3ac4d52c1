"""Refusals in the audit log: a few as single events, a flood as one event with its size.

In one clock second a process records a few refusals of a key singly, and a few of all keys that are
bound to one tenant (app/limits/table.py). The rest of that second, and all that exceeded a rate
limit, become one event for each key, with their number and their codes. It is stored when the
second ends, or when the process ends. A process that is killed loses that second's count. Beyond
the limit of a key's refusals the answer is a 429, and nothing is recorded.
"""

import atexit
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from cachetools import LRUCache

from app.audit import Event, actions
from app.audit.log import AuditLog
from app.clock import now
from app.concurrency.gevent import spawn
from app.errors import RateLimitedError, StoreUnavailableError
from app.limits.table import REFUSALS, REFUSALS_OF_KEY, REFUSALS_OF_TENANT
from app.limits.token_bucket import TokenBucket
from app.log import logger

_KEYS = 10_000  # the keys that were refused last
_QUIET_SECONDS = 60  # between two log lines about one key's flood


class _Rest(NamedTuple):
    """A key's refusals in one second that are not recorded singly, and the first of them."""

    first: Event
    codes: Counter[str]


class Refusals:
    """Records refusals. Requests call `record`. The summaries are stored in the background."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._counts: LRUCache[tuple[UUID, int], int] = LRUCache(_KEYS)
        self._rests: dict[tuple[UUID, int], _Rest] = {}
        self._lines = TokenBucket(1 / _QUIET_SECONDS, _QUIET_SECONDS)
        self._tenants = TokenBucket.of(REFUSALS_OF_TENANT)
        self._lock = threading.Lock()
        self._flushing = threading.Lock()

    def record(self, tenant_scope: UUID | None, event: Event) -> None:
        """Record a refusal.

        `tenant_scope`: the actor's. That tenant can read the summary of a flood. Raises
        RateLimitedError when this process refused this key too often in this second, and
        StoreUnavailableError.
        """
        place = UUID(event.actor.id), int(event.at.timestamp())  # the key and the second
        # For an exceeded rate limit the number suffices.
        if event.details["code"] != RateLimitedError.code and self._count(place, tenant_scope):
            self._audit.append(event)
        else:
            self._keep(place, replace(event, tenant_id=tenant_scope, connection_id=None))

    def _count(self, place: tuple[UUID, int], tenant_scope: UUID | None) -> bool:
        """Count a refusal. Return whether to record it singly."""
        with self._lock:
            count = self._counts[place] = self._counts.get(place, 0) + 1
        if count > REFUSALS.amount:
            if not self._lines.reserve(place[0]):
                logger.warning("refusals.flood", api_key_id=str(place[0]), most=REFUSALS.amount)
            raise REFUSALS.refuse(1)
        return count <= REFUSALS_OF_KEY.amount and not (
            tenant_scope and self._tenants.reserve(tenant_scope)
        )

    def _keep(self, place: tuple[UUID, int], event: Event) -> None:
        with self._lock:
            is_first = not self._rests
            rest = self._rests.setdefault(place, _Rest(event, Counter()))
            rest.codes[event.details["code"]] += 1
        if is_first:
            atexit.register(self.flush)
            spawn(self._flush_in_time)

    def _flush_in_time(self) -> None:
        while self._rests:
            time.sleep(1 - now().timestamp() % 1)
            self.flush(before=int(now().timestamp()))

    def flush(self, *, before: int | None = None) -> None:
        """Store the summaries of all seconds before this one (None: of all, when the process ends).

        The end of the process waits for a running flush. Otherwise the summaries that it took out
        would be lost with its thread.
        """
        with self._flushing:
            with self._lock:
                over = [place for place in self._rests if before is None or place[1] < before]
                rests = [self._rests.pop(place) for place in over]
            self._store(rests)
            with self._lock:
                if not self._rests:
                    atexit.unregister(self.flush)

    def _store(self, rests: list[_Rest]) -> None:
        """Append all summaries at the same moment, so that they share a commit."""
        for rest, appended in [(rest, spawn(self._audit.append, _summary(rest))) for rest in rests]:
            try:
                appended.result()
            except StoreUnavailableError:
                logger.exception(
                    "audit.refusal_not_recorded", refusals=[(rest.first.actor.id, dict(rest.codes))]
                )


def _summary(rest: _Rest) -> Event:
    """Return one event for the summary. Its time is the end of the second."""
    return actions.REQUEST_REFUSED.event(
        rest.first.actor._replace(request_id=None, client_address=None),
        {"count": rest.codes.total(), "codes": dict(rest.codes)},
        tenant_id=rest.first.tenant_id,
    )
