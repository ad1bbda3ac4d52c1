"""Quotas: limits on rare requests, which are counted in the database.

All processes share these counts. The requests write to the database anyway. Frequent requests are
counted in memory (app/limits/rates.py). The table `quota_uses` has one row for each quota and
subject. A subject is a tenant, an onboarding link or a connection.
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
    """The quotas. Each method counts one request, or raises RateLimitedError and counts nothing."""

    def __init__(self, db: Database, config: Config) -> None:
        self._db = db
        self._config = config
        self._change = table.CHANGES.with_setting(config)
        # When a tenant may make changes again, in seconds since 1970
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
        """Count one requested proof of a tenant's role. A proof makes several calls to AWS."""
        if principal.tenant_scope not in {None, tenant_id}:
            return  # another tenant's key gets a 404, and must not use up this tenant's quota
        self._acquire(principal, (table.ATTEMPTS, tenant_id))

    def acquire_role(self, principal: LinkPrincipal, tenant_id: UUID) -> None:
        """Count one role that is entered through this onboarding link, and one proof."""
        attempt = table.ATTEMPTS, tenant_id
        self._acquire(principal, (table.ROLES_ENTERED, principal.link_id), attempt)

    def acquire_check(self, principal: LinkPrincipal, tenant_id: UUID) -> None:
        """Count one check that is requested through this onboarding link, and one proof."""
        attempt = table.ATTEMPTS, tenant_id
        self._acquire(principal, (table.CHECKS, principal.link_id), attempt)

    def acquire_search_end(self, principal: LinkPrincipal) -> None:
        """Count one search that is ended through this onboarding link."""
        self._acquire(principal, (table.SEARCHES_ENDED, principal.link_id))

    def _acquire(self, principal: Principal, *limits: tuple[Limit, UUID]) -> None:
        """Count one request in each quota, or raise RateLimitedError and count nothing.

        The quota ATTEMPTS must be last in every call, to prevent deadlocks.
        """
        quotas = [(limit.with_setting(self._config), subject) for limit, subject in limits]
        with self._db.read() as db:  # a request that is refused must not wait for the write lock
            for quota, subject in quotas:
                _refuse_after(quota, _look(db, quota, subject))
        with self._db.write(principal) as db:
            for quota, subject in quotas:
                _refuse_after(quota, _take(db, quota, subject))


def acquire_rotation(db: Session, principal: Principal, tenant_id: UUID) -> None:
    """Count a started rotation, in this transaction. Raises RateLimitedError.

    Keys that are bound to no tenant have no limit.
    """
    if not principal.is_vendor:
        _refuse_after(table.ROTATIONS, _take(db, table.ROTATIONS, tenant_id))


def acquire(db: Session, quota: Limit, subject: UUID) -> bool:
    """Count one use in this transaction. Return False, and count nothing, if the quota is full."""
    return not _take(db, quota, subject)


def has_room(db: Session, quota: Limit, subject: UUID) -> bool:
    """Return whether `acquire` would return True. It needs no write lock."""
    return not _look(db, quota, subject)


def _refuse_after(quota: Limit, wait: float) -> None:
    if wait:
        raise quota.refuse(wait)


def _look(db: Session, quota: Limit, subject: UUID) -> float:
    """Return the seconds until the quota has room for one more use."""
    row = db.get(QuotaUse, (quota.name, subject))
    if row is None:
        return 0.0
    db.expunge(row)  # `count_use` changes the row, and the change must not be stored
    return count_use(row, *quota.window, now().timestamp())


def _take(db: Session, quota: Limit, subject: UUID) -> float:
    """Count one use and return 0. If the quota is full, return the seconds until it has room."""
    key = {"name": quota.name, "id": subject}
    row = db.scalars(select(QuotaUse).from_statement(_LOCK), key).one()
    wait = count_use(row, *quota.window, now().timestamp())
    if not wait and row.counted == 1:
        _forget(db, quota.name, before=row.number - 1)
    return wait


def _forget(db: Session, name: str, *, before: int) -> None:
    """Delete some rows of windows that are over, but none that another transaction has locked.

    The rows are chosen in a CTE, because PostgreSQL evaluates a CTE once. It may evaluate a
    subquery once for each row, and then choose other rows each time.
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
