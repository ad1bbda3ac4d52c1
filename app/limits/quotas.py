"""Quotas: limits on rare requests that write anyway, counted in the database by all processes
together.

Frequent requests are counted in memory (app/limits/rates.py). The table is `quota_uses`: one row
for each quota and subject, which is a tenant, an onboarding link or a connection.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from cachetools import LRUCache
from sqlalchemy import Uuid, bindparam, delete, select, text

from app.access.callers import Caller
from app.clock import now
from app.config import Config
from app.errors import RateLimitedError
from app.limits.sliding_window import SlidingWindow, Uses
from app.store.database import Database, Session
from app.store.models import QuotaUse

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_TENANTS = 10_000  # that were refused a change last
_FORGOTTEN = 20  # old rows that a new window deletes: more than it adds, so that they don't pile up
# Inserted or found, the row is locked: of two first requests at once, the second waits and sees the
# first one's count.
_LOCK = text(
    "INSERT INTO quota_uses (name, id, number, counted, counted_before) VALUES (:name, :id, 0, 0,"
    " 0) ON CONFLICT (name, id) DO UPDATE SET name = excluded.name RETURNING name, id, number,"
    " counted, counted_before"
).bindparams(bindparam("id", type_=Uuid()))


class _Quota(NamedTuple):
    window: SlidingWindow
    refusal: str

    def one_more(self, used: QuotaUse) -> Uses:
        """What the row holds with one more. Raises RateLimitedError."""
        uses = Uses(used.number, used.counted, used.counted_before)
        if wait := self.window.count(uses, now().timestamp()):
            raise RateLimitedError(self.refusal, retry_after=max(1, math.ceil(wait)))
        return uses


def _quota(name: str, what: str, rate: int, per: str, *, burst: int = 1) -> _Quota:
    """`rate` per second, minute, hour or day. `burst`: how many of those periods' worth may come
    at once.
    """
    window = SlidingWindow(rate * burst, _SECONDS[per] * burst, name)
    return _Quota(window, f"Too many {what}: at most {rate} per {per}.")


class Quotas:
    """Each method counts one request, or raises RateLimitedError and counts nothing."""

    def __init__(self, db: Database, config: Config) -> None:
        self._db = db
        link_rate = config.link_rate
        self._attempt = _quota(
            "attempt", "checks of this tenant's roles", config.connection_rate, "minute"
        )
        self._entered = _quota("paste", "roles entered through this link", link_rate, "hour")
        self._again = _quota("again", "checks through this link", link_rate, "hour")
        self._end_search = _quota(
            "end_search", "searches ended through this link", link_rate, "hour"
        )
        changes = "changes of keys, links and suspensions, with this tenant's keys"
        self._change = _quota("change", changes, config.tenant_revokes, "second", burst=4)
        self._full: LRUCache[UUID, float] = LRUCache(
            _TENANTS
        )  # until when a tenant may change nothing more
        self._lock = threading.Lock()  # around those

    def counting_changes(self, caller: Caller) -> Caller:
        """The caller, for one change that makes or revives what a stop takes away: TENANT_REVOKES
        per second and tenant; unbound keys: no limit.

        Each stop moves the epoch, and then all tenants' issuances that are under way check and
        commit again. A stop is never refused, so what can be stopped is counted, in the transaction
        that makes it. Until the time that a refusal names, this process refuses the tenant's next
        ones from memory: asking the database for each would cost others nearly as much as the
        changes.
        """
        tenant_id = caller.tenant_id
        if tenant_id is None:
            return caller
        with self._lock:
            wait = self._full.get(tenant_id, 0.0) - now().timestamp()
        if wait > 0:
            raise RateLimitedError(self._change.refusal, retry_after=math.ceil(wait))
        return replace(caller, counts=lambda db: self._count_change(db, tenant_id))

    def _count_change(self, db: Session, tenant_id: UUID) -> None:
        try:
            _take(db, self._change, tenant_id)
        except RateLimitedError as error:
            with self._lock:
                self._full[tenant_id] = now().timestamp() + error.retry_after
            raise

    def admit_attempt(self, caller: Caller, tenant_id: UUID) -> None:
        """One proof of a role of this tenant: CONNECTION_RATE per minute, as it costs several
        calls to AWS.
        """
        if caller.tenant_id not in {None, tenant_id}:
            return  # another tenant's key will get a 404, and must not use up this tenant's quota
        self._count(caller, (self._attempt, tenant_id))

    def admit_role(self, caller: Caller, tenant_id: UUID) -> None:
        """One role entered through this onboarding link: LINK_RATE per hour; and an attempt."""
        self._count(caller, (self._entered, caller.key_id), (self._attempt, tenant_id))

    def admit_check(self, caller: Caller, tenant_id: UUID) -> None:
        """One check asked for through this onboarding link: LINK_RATE per hour; and an attempt."""
        self._count(caller, (self._again, caller.key_id), (self._attempt, tenant_id))

    def admit_search_end(self, caller: Caller) -> None:
        """One search ended through this onboarding link: LINK_RATE per hour."""
        self._count(caller, (self._end_search, caller.key_id))

    def _count(self, caller: Caller, *wanted: tuple[_Quota, UUID]) -> None:
        """Counts one in each quota, or raises and counts nothing. The attempt is always last, to
        prevent deadlocks.
        """
        with self._db.read() as db:  # refused requests must not queue for the write lock
            for quota, subject in wanted:
                _look(db, quota, subject)
        with self._db.write(caller) as db:
            for quota, subject in wanted:
                _take(db, quota, subject)


# A stack sends one message when it is made, changed or deleted. More than these would only fill the
# audit log.
_MESSAGES = _quota("registration", "messages of stacks about this role", 20, "hour")
# Each report that takes effect moves the epoch: other tenants' issuances that are under way check
# and commit again.
_REPORTS = _quota("report", "reports of refusals for this tenant", 60, "minute")
_ROTATIONS = _quota("rotation", "rotations started with this tenant's keys", 20, "day")


def admits_message(db: Session, subject: UUID) -> bool:
    """Whether to keep one more message of a stack, counted in the transaction at hand.

    `subject`: the connection; or the tenant, for Delete messages about roles that it has no
    connection to.
    """
    return _admits(_take, db, _MESSAGES, subject)


def count_rotation(db: Session, caller: Caller, tenant_id: UUID) -> None:
    """One that a bound key starts, in the transaction at hand, because no External ID's row is ever
    deleted. Unbound keys have no limit. Raises RateLimitedError.
    """
    if caller.tenant_id is not None:
        _take(db, _ROTATIONS, tenant_id)


def has_room_for_report(db: Session, tenant_id: UUID) -> bool:
    """Whether `admits_report` would say yes. It only reads, so refused reports do not queue for
    the write lock.
    """
    return _admits(_look, db, _REPORTS, tenant_id)


def admits_report(db: Session, tenant_id: UUID) -> bool:
    """Whether one more report of a refusal takes effect for this tenant, counted in the
    transaction at hand.
    """
    return _admits(_take, db, _REPORTS, tenant_id)


def _admits(
    count: Callable[[Session, _Quota, UUID], None], db: Session, quota: _Quota, subject: UUID
) -> bool:
    try:
        count(db, quota, subject)
    except RateLimitedError:
        return False
    return True


def _look(db: Session, quota: _Quota, subject: UUID) -> None:
    """Raises RateLimitedError when there is no room for one more."""
    if (used := db.get(QuotaUse, (quota.window.name, subject))) is not None:
        quota.one_more(used)


def _take(db: Session, quota: _Quota, subject: UUID) -> None:
    used = db.scalars(
        select(QuotaUse).from_statement(_LOCK), {"name": quota.window.name, "id": subject}
    ).one()
    uses = quota.one_more(used)
    used.number, used.counted, used.counted_before = uses.number, uses.counted, uses.before
    if used.counted == 1:
        _forget(db, quota.window.name, before=used.number - 1)


def _forget(db: Session, name: str, *, before: int) -> None:
    """Delete some rows of past windows, except those that another transaction has locked.

    They are chosen in a CTE, which PostgreSQL evaluates once. A subquery may run once for each row,
    and choose others.
    """
    past = QuotaUse.name == name, QuotaUse.number < before
    old = (
        select(QuotaUse.id)
        .where(*past)
        .limit(_FORGOTTEN)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    query = delete(QuotaUse).where(QuotaUse.name == name, QuotaUse.id.in_(select(old.c.id)))
    db.execute(query, execution_options={"synchronize_session": False})
