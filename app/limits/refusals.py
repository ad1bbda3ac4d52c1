"""Refusals in the audit log: a few as events of their own, a flood as one event with its size.

In one clock second at most ten refusals of a key are events of their own, counted over all processes in the database;
of all keys that are bound to a tenant, twenty in each process. Each is a transaction, for which others wait. The rest
of that second, and all that were refused for a rate, become one event for each key and process, with their number and
their codes. It is stored when the second is over, or when the process ends; a process that is killed loses what it
counted in that second. Above two hundred in a second the answer is a 429, and nothing is recorded.
"""

import atexit
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from uuid import UUID

from cachetools import LRUCache, TTLCache

from app.audit import Action, Event, log as audit
from app.clock import now
from app.concurrency.gevent import spawn
from app.errors import RateLimitedError, StoreUnavailableError
from app.ids import new_id
from app.limits.quotas import count_refusals
from app.limits.rates import Limit
from app.log import logger
from app.store.database import SYSTEM, Database

SINGLY = 10  # of a key, in a second
OF_TENANT = 20  # of all keys that are bound to one tenant, in a second and in each process
MOST = 200
_PORTION = 19  # counted in the database at once, once they are not recorded singly
_KEYS = 10_000  # those that were refused last
_QUIET_SECONDS = 60  # between two log lines about one key's flood


@dataclass(slots=True)
class _Tally:
    """A key's refusals in one second, as this process knows them. `counted`: in all processes, at the last query."""

    counted: int = 0
    left: int = 0  # of a portion that is counted already
    counting: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class _Rest:
    """A key's refusals in one second that are not recorded singly. `last`: the latest of them."""

    last: Event
    codes: Counter[str] = field(default_factory=Counter)


class Refusals:
    """Records refusals. Requests call `record`; the summaries are stored in the background."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._tallies: LRUCache[tuple[UUID, int], _Tally] = LRUCache(_KEYS)
        self._rests: dict[tuple[UUID, int], _Rest] = {}
        self._told: TTLCache[UUID, bool] = TTLCache(_KEYS, ttl=_QUIET_SECONDS)
        self._tenants = Limit("refusals", OF_TENANT, 1)
        self._lock = threading.Lock()
        self._flushing = threading.Lock()

    def record(self, key_id: UUID, tenant_id: UUID | None, event: Event) -> None:
        """Record a refusal. `tenant_id`: of a bound key; its tenant sees the summary of a flood.

        Raises RateLimitedError when this key was refused more than MOST times in this second, and
        StoreUnavailableError.
        """
        place = key_id, int(event.at.timestamp())
        if event.details["code"] == RateLimitedError.code:  # its number says all, and others wait for each transaction
            self._keep(place, replace(event, tenant_id=tenant_id, connection_id=None))
            return
        with self._lock:
            tally = self._tallies.setdefault(place, _Tally())
        with tally.counting:  # refusals that arrive together share one query
            alone = self._count(place, tally, event, tenant_id)
        if not alone:
            self._keep(place, replace(event, tenant_id=tenant_id, connection_id=None))

    def _count(self, place: tuple[UUID, int], tally: _Tally, event: Event, tenant_id: UUID | None) -> bool:
        """Returns whether it was stored as an event of its own."""
        if not tally.left and tally.counted < SINGLY and tenant_id and self._tenants.hit(tenant_id):
            tally.counted, tally.left = SINGLY, _PORTION
        if tally.left:
            tally.left -= 1
            return False
        if tally.counted < MOST:
            wanted = 1 if tally.counted < SINGLY else _PORTION
            with self._db.write(SYSTEM) as db:
                before = count_refusals(db, *place, wanted, otherwise=SINGLY)
                if before < SINGLY:
                    # With an id that is made in this transaction, as the audit log's feed requires.
                    audit.record(db, replace(event, id=new_id()))
            tally.counted = before + wanted
            tally.left = max(0, min(wanted, MOST - before) - 1)
            if before < MOST:
                return before < SINGLY
        self._tell(place[0])
        raise RateLimitedError(f"Too many refused requests with this key: at most {MOST} per second.", retry_after=1)

    def _tell(self, key_id: UUID) -> None:
        with self._lock:
            told = self._told.get(key_id, False)
            self._told.setdefault(key_id, True)
        if not told:
            logger.warning("refusals.flood", api_key_id=str(key_id), most=MOST)

    def _keep(self, place: tuple[UUID, int], event: Event) -> None:
        with self._lock:
            first = not self._rests
            rest = self._rests.setdefault(place, _Rest(event))
            rest.last = event
            rest.codes[event.details["code"]] += 1
        if first:
            atexit.register(self.flush)
            spawn(self._flush_in_time)

    def _flush_in_time(self) -> None:
        while self._rests:
            time.sleep(1 - now().timestamp() % 1)
            self.flush(before=int(now().timestamp()))

    def flush(self, *, before: int | None = None) -> None:
        """Store the summaries of all seconds before this one (None: of all, at the end of the process).

        The process's end waits for a flush that has begun: what that one took out would be lost with its thread.
        """
        with self._flushing:
            with self._lock:
                over = [place for place in self._rests if before is None or place[1] < before]
                rests = [self._rests.pop(place) for place in over]
            if rests:
                self._store(rests)
            with self._lock:
                if not self._rests:
                    atexit.unregister(self.flush)

    def _store(self, rests: list[_Rest]) -> None:
        try:
            with self._db.write(SYSTEM) as db:
                for rest in rests:
                    audit.record(db, _summary(rest))
        except StoreUnavailableError:
            told = [(rest.last.actor.id, dict(rest.codes)) for rest in rests]
            logger.exception("audit.refusal_not_recorded", refusals=told)


def _summary(rest: _Rest) -> Event:
    """One event, with a time in the second that it is about."""
    last, details = rest.last, {"count": rest.codes.total(), "codes": dict(rest.codes)}
    actor = last.actor._replace(request_id=None, client_address=None)
    return Event(actor, Action.REQUEST_REFUSED, details, outcome="refused", tenant_id=last.tenant_id, at=last.at)
