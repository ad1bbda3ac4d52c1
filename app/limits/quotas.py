"""Quotas: limits on rare requests that write anyway, counted in the database.

All processes count together. Frequent requests are counted in memory (app/limits/rates.py). The
table is `quota_uses`: one row for each quota and subject, which is a tenant, an onboarding link or
a connection.
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
_TENANTS = 10_000  # the tenants that were refused a change last
_FORGOTTEN = 20  # old rows that a new window deletes: more than it adds, so that they don't pile up
# The row is locked, whether it was inserted or existed. Of two first requests at once, the second
# waits and reads the first one's count.
_LOCK = text(
    "INSERT INTO quota_uses (name, id, number, counted, counted_before) VALUES (:name, :id, 0, 0,"
    " 0) ON CONFLICT (name, id) DO UPDATE SET name = excluded.name RETURNING name, id, number,"
    " counted, counted_before"
).bindparams(bindparam("id", type_=Uuid()))


class _Quota(NamedTuple):
    window: SlidingWindow
    refusal: str

    def one_more(self, used: QuotaUse) -> Uses:
        """Return the row's uses with one more. Raises RateLimitedError."""
        uses = Uses(used.number, used.counted, used.counted_before)
        if wait := self.window.count(uses, now().timestamp()):
            raise RateLimitedError(self.refusal, retry_after=max(1, math.ceil(wait)))
        return uses


def _quota(name: str, what: str, rate: int, per: str, *, burst: int = 1) -> _Quota:
    """Make a quota of `rate` per second, minute, hour or day.

    `burst`: how many of those periods' worth may come at once.
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
        # The time until which a tenant may make no more changes
        self._full: LRUCache[UUID, float] = LRUCache(_TENANTS)
        self._lock = threading.Lock()  # around those

    def counting_changes(self, caller: Caller) -> Caller:
        """Return the caller for a change that makes or revives something that can be revoked.

        The limit is TENANT_REVOKES per second and tenant. Unbound keys have no limit. Each
        revocation raises the revocation counter, and then all tenants' in-flight issuances check
        and commit again. A revocation is never refused. So what can be revoked is counted, in the
        transaction that makes it. Until the time that a refusal names, this process refuses the
        tenant's next changes from memory. Asking the database for each would cost others nearly as
        much as the changes.
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
        """Count one proof of a role of this tenant: CONNECTION_RATE per minute.

        A proof costs several calls to AWS.
        """
        if caller.tenant_id not in {None, tenant_id}:
            return  # another tenant's key gets a 404, and must not use up this tenant's quota
        self._count(caller, (self._attempt, tenant_id))

    def admit_role(self, caller: Caller, tenant_id: UUID) -> None:
        """Count one role entered through this onboarding link, and an attempt.

        The limit for a link is LINK_RATE per hour.
        """
        self._count(caller, (self._entered, caller.key_id), (self._attempt, tenant_id))

    def admit_check(self, caller: Caller, tenant_id: UUID) -> None:
        """Count one check requested through this onboarding link, and an attempt.

        The limit for a link is LINK_RATE per hour.
        """
        self._count(caller, (self._again, caller.key_id), (self._attempt, tenant_id))

    def admit_search_end(self, caller: Caller) -> None:
        """Count one search ended through this onboarding link: LINK_RATE per hour."""
        self._count(caller, (self._end_search, caller.key_id))

    def _count(self, caller: Caller, *wanted: tuple[_Quota, UUID]) -> None:
        """Count one in each quota, or raise RateLimitedError and count nothing.

        The attempt is always last, to prevent deadlocks.
        """
        with self._db.read() as db:  # refused requests must not queue for the write lock
            for quota, subject in wanted:
                _look(db, quota, subject)
        with self._db.write(caller) as db:
            for quota, subject in wanted:
                _take(db, quota, subject)


# A stack sends one message when it is created, changed or deleted. More messages than these would
# only fill the audit log.
_MESSAGES = _quota("registration", "messages of stacks about this role", 20, "hour")
# Each report that takes effect raises the revocation counter: other tenants' in-flight issuances
# check and commit again.
_REPORTS = _quota("report", "reports of refusals for this tenant", 60, "minute")
_ROTATIONS = _quota("rotation", "rotations started with this tenant's keys", 20, "day")


def admits_message(db: Session, subject: UUID) -> bool:
    """Return whether to keep one more message of a stack, and count it in this transaction.

    `subject`: the connection; or the tenant, for Delete messages about roles that it has no
    connection to.
    """
    return _admits(_take, db, _MESSAGES, subject)


def count_rotation(db: Session, caller: Caller, tenant_id: UUID) -> None:
    """Count a rotation that a bound key starts, in this transaction.

    It is limited because no External ID's row is ever deleted. Unbound keys have no limit. Raises
    RateLimitedError.
    """
    if caller.tenant_id is not None:
        _take(db, _ROTATIONS, tenant_id)


def has_room_for_report(db: Session, tenant_id: UUID) -> bool:
    """Return whether `admits_report` would return True.

    It only reads, so refused reports do not queue for the write lock.
    """
    return _admits(_look, db, _REPORTS, tenant_id)


def admits_report(db: Session, tenant_id: UUID) -> bool:
    """Return whether one more report of a refusal takes effect for this tenant.

    It is counted in this transaction.
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
    """Raise RateLimitedError when there is no room for one more."""
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
