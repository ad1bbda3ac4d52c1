"""Refusals in the audit log: single events for a few refusals, and a summary for a flood.

In each second, a process records a limited number of refusals as single events. There is one limit
for each key, and one for all keys of a tenant (app/limits/limits.py). The key's other refusals in
that second become one event with their number and their codes. This summary is stored when the
second or the process ends. A process that is killed loses it. Beyond the limit REFUSALS, the answer
is a 429, and nothing is recorded.
"""

import atexit
import threading
import time
from collections import Counter
from typing import NamedTuple
from uuid import UUID

from cachetools import LRUCache

from app.audit import Actor, Event, actions
from app.audit.log import AuditLog
from app.clock import now
from app.concurrency.gevent import spawn
from app.limits.counting_in_memory import TokenBucket
from app.limits.limits import REFUSALS, REFUSALS_OF_KEY, REFUSALS_OF_TENANT
from app.log import logger

_KEYS = 10_000  # maximum of counts that are kept, each for one key in one second
_QUIET_SECONDS = 60  # between two log lines about floods of the same key


class _Second(NamedTuple):
    """One second of one key, whose refusals are counted."""

    actor: Actor
    tenant_id: UUID | None  # the tenant that the key is bound to
    second: int


class Refusals:
    """Records refusals. Requests call `record`; a background thread stores the summaries."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._counts: LRUCache[_Second, int] = LRUCache(_KEYS)
        # The codes of refusals that are not single events
        self._rests: dict[_Second, Counter[str]] = {}
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
        actor = event.actor._replace(request_id=None, client_address=None)
        second = _Second(actor, tenant_scope, int(event.at.timestamp()))
        if self._count(second):
            self._audit.append(event)
            return
        with self._lock:
            is_first = not self._rests
            self._rests.setdefault(second, Counter())[event.details["code"]] += 1
        if is_first:
            atexit.register(self.flush)
            spawn(self._flush_in_time)

    def _count(self, second: _Second) -> bool:
        """Count a refusal, and return whether to record it as a single event."""
        with self._lock:
            count = self._counts[second] = self._counts.get(second, 0) + 1
        if count > REFUSALS.amount:
            key_id = second.actor.id
            if not self._lines.reserve(UUID(key_id)):
                logger.warning("refusals.flood", api_key_id=key_id, most=REFUSALS.amount)
            raise REFUSALS.refuse(1)
        return count <= REFUSALS_OF_KEY.amount and not (
            second.tenant_id and self._tenants.reserve(second.tenant_id)
        )

    def _flush_in_time(self) -> None:
        while self._rests:
            time.sleep(1 - now().timestamp() % 1)
            self.flush(before=int(now().timestamp()))

    def flush(self, *, before: int | None = None) -> None:
        """Store the summaries of the seconds before `before`; None: all summaries.

        The process calls this at its exit, and then waits for a flush that is still running.
        Otherwise the summaries of the running flush would be lost with its thread.
        """
        with self._flushing:
            with self._lock:
                over = [each for each in self._rests if before is None or each.second < before]
                summaries = [_summary(second, self._rests.pop(second)) for second in over]
            self._store(summaries)
            with self._lock:
                if not self._rests:
                    atexit.unregister(self.flush)

    def _store(self, summaries: list[Event]) -> None:
        """Append all summaries concurrently, so that they share a group commit."""
        for event, appended in [(event, spawn(self._audit.append, event)) for event in summaries]:
            try:
                appended.result()
            except Exception:  # noqa: BLE001  or the thread ends, and loses all later summaries
                logger.exception(
                    "audit.refusal_not_recorded",
                    refusals=[(event.actor.id, event.details["codes"])],
                )


def _summary(second: _Second, codes: Counter[str]) -> Event:
    """Return the event of a summary. Its time is now, which is after the end of the second."""
    return actions.REQUEST_REFUSED.event(
        second.actor, {"count": codes.total(), "codes": dict(codes)}, tenant_id=second.tenant_id
    )
