"""Quotas: limits on rare requests that write anyway, counted in the database.

All processes count together. Frequent requests are counted in memory (app/limits/rates.py). The
table is `quota_uses`: one row for each quota and subject, which is a tenant, an onboarding link or
a connection.
"""

import threading
from dataclasses import replace
from uuid import UUID

from cachetools import LRUCache
from sqlalchemy import Uuid, bindparam, delete, select, text

from app.clock import now
from app.config import Config
from app.identity.principals import ApiKeyPrincipal, LinkPrincipal, Principal
from app.limits import table
from app.limits.sliding_window import count_use
from app.settings.declarations import Limit
from app.store.database import Database, Session
from app.store.models import QuotaUse

_TENANTS = 10_000  # the tenants that were refused a change last
_FORGOTTEN = 20  # old rows that a new window deletes: more than it adds, so that they don't pile up
# The row is locked, whether it was inserted or existed. Of two first requests at once, the second
# waits and reads the first one's count.
_LOCK = text(
    "INSERT INTO quota_uses (name, id, number, counted, counted_before) VALUES (:name, :id, 0, 0,"
    " 0) ON CONFLICT (name, id) DO UPDATE SET name = excluded.name RETURNING name, id, number,"
    " counted, counted_before"
).bindparams(bindparam("id", type_=Uuid()))


class Quotas:
    """Each method counts one request, or raises RateLimitedError and counts nothing."""

    def __init__(self, db: Database, config: Config) -> None:
        self._db = db
        self._config = config
        self._change = table.CHANGES.with_setting(config)
        # The time until which a tenant may make no more changes
        self._full: LRUCache[UUID, float] = LRUCache(_TENANTS)
        self._lock = threading.Lock()  # around those

    def limiting_changes(self, principal: ApiKeyPrincipal) -> ApiKeyPrincipal:
        """Return the principal for a change that makes or revives something that can be revoked.

        Unbound keys have no limit. Each revocation raises the revocation counter, and then all
        tenants' in-flight issuances check and commit again. A revocation is never refused. So what
        can be revoked is counted, in the transaction that makes it. Until the time that a refusal
        names, this process refuses the tenant's next changes from memory. Asking the database for
        each would cost others nearly as much as the changes.
        """
        tenant_scope = principal.tenant_scope
        if tenant_scope is None:
            return principal
        with self._lock:
            wait = self._full.get(tenant_scope, 0.0) - now().timestamp()
        if wait > 0:
            raise self._change.refuse(wait)
        return replace(principal, on_write=lambda db: self._acquire_change(db, tenant_scope))

    def _acquire_change(self, db: Session, tenant_id: UUID) -> None:
        if wait := _take(db, self._change, tenant_id):
            refusal = self._change.refuse(wait)
            with self._lock:
                self._full[tenant_id] = now().timestamp() + refusal.retry_after
            raise refusal

    def acquire_attempt(self, principal: Principal, tenant_id: UUID) -> None:
        """Count one proof of a role of this tenant. A proof costs several calls to AWS."""
        if principal.tenant_scope not in {None, tenant_id}:
            return  # another tenant's key gets a 404, and must not use up this tenant's quota
        self._acquire(principal, (table.ATTEMPTS, tenant_id))

    def acquire_role(self, principal: LinkPrincipal, tenant_id: UUID) -> None:
        """Count one role entered through this onboarding link, and an attempt."""
        attempt = table.ATTEMPTS, tenant_id
        self._acquire(principal, (table.ROLES_ENTERED, principal.link_id), attempt)

    def acquire_check(self, principal: LinkPrincipal, tenant_id: UUID) -> None:
        """Count one check requested through this onboarding link, and an attempt."""
        attempt = table.ATTEMPTS, tenant_id
        self._acquire(principal, (table.CHECKS, principal.link_id), attempt)

    def acquire_search_end(self, principal: LinkPrincipal) -> None:
        """Count one search ended through this onboarding link."""
        self._acquire(principal, (table.SEARCHES_ENDED, principal.link_id))

    def _acquire(self, principal: Principal, *limits: tuple[Limit, UUID]) -> None:
        """Count one in each quota, or raise RateLimitedError and count nothing.

        The attempt is always last, to prevent deadlocks.
        """
        quotas = [(limit.with_setting(self._config), subject) for limit, subject in limits]
        with self._db.read() as db:  # refused requests must not queue for the write lock
            for quota, subject in quotas:
                _refuse_after(quota, _look(db, quota, subject))
        with self._db.write(principal) as db:
            for quota, subject in quotas:
                _refuse_after(quota, _take(db, quota, subject))


def acquire_rotation(db: Session, principal: Principal, tenant_id: UUID) -> None:
    """Count a rotation that a bound key starts, in this transaction. Raises RateLimitedError.

    Unbound keys have no limit.
    """
    if not principal.is_vendor:
        _refuse_after(table.ROTATIONS, _take(db, table.ROTATIONS, tenant_id))


def acquire(db: Session, quota: Limit, subject: UUID) -> bool:
    """Count one in this transaction, and return whether there was room for it."""
    return not _take(db, quota, subject)


def has_room(db: Session, quota: Limit, subject: UUID) -> bool:
    """Return whether `acquire` would return True, without the write lock."""
    return not _look(db, quota, subject)


def _refuse_after(quota: Limit, wait: float) -> None:
    if wait:
        raise quota.refuse(wait)


def _look(db: Session, quota: Limit, subject: UUID) -> float:
    """Return the seconds until there is room for one more."""
    row = db.get(QuotaUse, (quota.name, subject))
    if row is None:
        return 0.0
    db.expunge(row)  # what is counted here is not stored
    return count_use(row, *quota.window, now().timestamp())


def _take(db: Session, quota: Limit, subject: UUID) -> float:
    """Count one and return 0; or return the seconds until there is room for one."""
    key = {"name": quota.name, "id": subject}
    row = db.scalars(select(QuotaUse).from_statement(_LOCK), key).one()
    wait = count_use(row, *quota.window, now().timestamp())
    if not wait and row.counted == 1:
        _forget(db, quota.name, before=row.number - 1)
    return wait


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
