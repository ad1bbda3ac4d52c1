"""Quotas: limits on rare requests, which are counted in the database.

All processes share these counts. The requests write to the database anyway. Frequent requests are
counted in memory (app/limits/counting_in_memory.py). The table `quota_uses` has one row for each
quota and subject. A subject is a tenant, an onboarding link or a connection.
"""

import threading
from typing import Any
from uuid import UUID

from cachetools import LRUCache
from sqlalchemy import Uuid, bindparam, delete, select, text

from app.clock import now
from app.config import Config
from app.identity.principals import ApiKeyPrincipal, Principal
from app.limits import limits
from app.settings.setting_types import Limit
from app.store.database import Database, Session
from app.store.models import QuotaUse

_TENANTS = 10_000  # maximum of tenants whose refusal is kept in memory
_FORGOTTEN = 20  # maximum of old rows to delete for each new window, so that they don't pile up
# The statement locks the row, whether it inserts it or finds it. If two requests of a new subject
# arrive together, the second waits, and then reads the count of the first.
_LOCK = text(
    "INSERT INTO quota_uses (name, id, number, counted, counted_before) VALUES (:name, :id, 0, 0,"
    " 0) ON CONFLICT (name, id) DO UPDATE SET name = excluded.name RETURNING name, id, number,"
    " counted, counted_before"
).bindparams(bindparam("id", type_=Uuid()))


class Quotas:
    """The quotas of requests. Beyond a quota, the methods raise RateLimitedError."""

    def __init__(self, db: Database, config: Config) -> None:
        self._db = db
        self._config = config
        self._change = limits.CHANGES.with_setting(config)
        # When each tenant may make changes again, in seconds since 1970
        self._full: LRUCache[UUID, float] = LRUCache(_TENANTS)
        self._lock = threading.Lock()  # protects `_full`

    def limiting_changes(self, principal: ApiKeyPrincipal) -> ApiKeyPrincipal:
        """Return the principal for a change that creates or revives something that can be revoked.

        The returned principal counts the change for its tenant, in the change's own transaction.
        Keys that are bound to no tenant have no limit.

        Each revocation raises the revocation counter, and then all tenants' in-flight issuances
        check and commit again. A revocation is never refused. So the number of things that can be
        revoked is limited instead. After a refusal, this process refuses the tenant's changes from
        memory until the time that the refusal named. Refusing each of them by the database would
        cost others nearly as much as the changes.
        """
        tenant_scope = principal.tenant_scope
        if tenant_scope is None:
            return principal
        with self._lock:
            wait = self._full.get(tenant_scope, 0.0) - now().timestamp()
        if 0 < wait <= self._change.window[1]:  # longer: the clock was ahead
            raise self._change.refuse(wait)
        return principal.noting(lambda db: self._acquire_change(db, tenant_scope))

    def _acquire_change(self, db: Session, tenant_id: UUID) -> None:
        if wait := take(db, self._change, tenant_id):
            refusal = self._change.refuse(wait)
            with self._lock:
                self._full[tenant_id] = now().timestamp() + refusal.retry_after
            raise refusal

    def acquire(self, principal: Principal, tenant_id: UUID, *quotas: Limit) -> None:
        """Count one request in each of these quotas of the tenant or of the principal's link.

        If one of the quotas is full, raise RateLimitedError and count nothing. ATTEMPTS must be
        last in every call, to prevent deadlocks.
        """
        if principal.tenant_scope not in {None, tenant_id}:
            return  # another tenant's key gets a 404, and must not use up this tenant's quota
        subjects: dict[str, Any] = {"tenant": tenant_id, "onboarding link": principal.link_id}
        counted = [(quota.with_setting(self._config), subjects[quota.per]) for quota in quotas]
        with self._db.read() as db:  # a request that is refused must not wait for the write lock
            for limit, subject in counted:
                if wait := seconds_until_room(db, limit, subject):
                    raise limit.refuse(wait)
        with self._db.write(principal) as db:
            for limit, subject in counted:
                acquire_in(db, limit, subject)


def acquire_in(db: Session, quota: Limit, subject: UUID) -> None:
    """Count one use in this transaction. Raises RateLimitedError."""
    if wait := take(db, quota, subject):
        raise quota.refuse(wait)


def seconds_until_room(db: Session, quota: Limit, subject: UUID) -> float:
    """Return what `take` would return, but count nothing. It needs no write lock."""
    row = db.get(QuotaUse, (quota.name, subject))
    if row is None:
        return 0.0
    db.expunge(row)  # `count_use` changes the row, and the change must not be stored
    return count_use(row, *quota.window, now().timestamp())


def take(db: Session, quota: Limit, subject: UUID) -> float:
    """Count one use in this transaction, and return 0.

    If the quota is full, count nothing, and return the seconds until it has room.
    """
    key = {"name": quota.name, "id": subject}
    row = db.scalars(select(QuotaUse).from_statement(_LOCK), key).one()
    wait = count_use(row, *quota.window, now().timestamp())
    if not wait and row.counted == 1:
        _forget(db, quota.name, before=row.number - 1)
    return wait


def count_use(use: QuotaUse, amount: int, seconds: int, current_time: float) -> float:
    """Count one use and return 0, if at most `amount` uses are then in the last `seconds`.

    Otherwise count nothing, and return the seconds until there is room. `current_time`: in seconds
    since 1970.

    The uses are estimated from the counts of the current and the previous window, as if those of
    the previous one were spread evenly. If they are not, a span across the boundary of the windows
    can contain up to twice the limit.
    """
    number, passed = int(current_time // seconds), current_time % seconds
    ahead = use.number - number
    if ahead == 1:  # another machine or thread, whose clock is a little ahead, began the window
        passed -= seconds
    elif ahead != 0:
        use.counted_before = use.counted if ahead == -1 else 0
        use.number, use.counted = number, 0
    over = use.counted_before * (seconds - passed) - (amount - use.counted - 1) * seconds
    if over <= 0:
        use.counted += 1
        return 0.0
    if use.counted < amount:  # there is room when enough of the earlier window has passed
        return over / use.counted_before
    # There is room a little after the next window begins
    return min(float(seconds), seconds - passed + seconds / amount)


def _forget(db: Session, name: str, *, before: int) -> None:
    """Delete some rows of past windows, but none that another transaction has locked.

    The rows are chosen in a CTE, because PostgreSQL evaluates a CTE once. It may evaluate a
    subquery once for each row, and then choose other rows each time.
    """
    old = (
        select(QuotaUse.id)
        .where(QuotaUse.name == name, QuotaUse.number < before)
        .limit(_FORGOTTEN)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    query = delete(QuotaUse).where(QuotaUse.name == name, QuotaUse.id.in_(select(old.c.id)))
    db.execute(query, execution_options={"synchronize_session": False})
