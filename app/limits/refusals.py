"""Refusals in the audit log: single events for a few refusals, and a summary for a flood.

In each second, a process records a limited number of refusals as single events. There is one limit
for each key, and one for all keys of a tenant (app/limits/table.py). The key's other refusals in
that second, and all refusals by a rate limit, become one event with their number and their codes.
This summary is stored when the second or the process ends. A process that is killed loses it.
Beyond the limit REFUSALS, the answer is a 429, and nothing is recorded.
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

_KEYS = 10_000  # maximum of counts that are kept, each for one key in one second
_QUIET_SECONDS = 60  # between two log lines about floods of the same key


class _Rest(NamedTuple):
    """A key's refusals in one second that are not single events: the first one, and the codes."""

    first: Event
    codes: Counter[str]


class Refusals:
    """Records refusals. Requests call `record`; a background thread stores the summaries."""

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

        `tenant_scope`: the tenant that the key is bound to, which can read the summary of a flood.
        Raises RateLimitedError when this process has refused the key too often in this second, and
        StoreUnavailableError.
        """
        place = UUID(event.actor.id), int(event.at.timestamp())  # the key and the second
        # Refusals by a rate limit are only counted.
        if event.details["code"] != RateLimitedError.code and self._count(place, tenant_scope):
            self._audit.append(event)
        else:
            self._keep(place, replace(event, tenant_id=tenant_scope, connection_id=None))

    def _count(self, place: tuple[UUID, int], tenant_scope: UUID | None) -> bool:
        """Count a refusal, and return whether to record it as a single event."""
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
        """Store the summaries of the seconds before `before`; None: all summaries.

        When the process exits, it calls this method, which waits for a flush that is running.
        Otherwise the summaries that the running flush has taken would be lost with its thread.
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
        """Append all summaries concurrently, so that they share a group commit."""
        for rest, appended in [(rest, spawn(self._audit.append, _summary(rest))) for rest in rests]:
            try:
                appended.result()
            except StoreUnavailableError:
                logger.exception(
                    "audit.refusal_not_recorded", refusals=[(rest.first.actor.id, dict(rest.codes))]
                )


def _summary(rest: _Rest) -> Event:
    """Return the event of a summary. Its time is now, which is after the end of the second."""
    return actions.REQUEST_REFUSED.event(
        rest.first.actor._replace(request_id=None, client_address=None),
        {"count": rest.codes.total(), "codes": dict(rest.codes)},
        tenant_id=rest.first.tenant_id,
    )
