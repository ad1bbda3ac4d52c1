"""Quotas: limits on rare requests that write anyway, counted in the database.

All processes count together. Frequent requests are counted in memory (app/limits/rates.py). The
table is `quota_uses`: one row for each quota and subject, which is a tenant, an onboarding link or
a connection.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from cachetools import LRUCache
from sqlalchemy import Uuid, bindparam, delete, select, text

from app.clock import now
from app.config import Config
from app.errors import RateLimitedError
from app.identity.principals import ApiKeyPrincipal, LinkPrincipal, Principal
from app.limits import table
from app.limits.sliding_window import SlidingWindow, Uses
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

    def counting_changes(self, caller: ApiKeyPrincipal) -> ApiKeyPrincipal:
        """Return the caller for a change that makes or revives something that can be revoked.

        Unbound keys have no limit. Each revocation raises the revocation counter, and then all
        tenants' in-flight issuances check and commit again. A revocation is never refused. So what
        can be revoked is counted, in the transaction that makes it. Until the time that a refusal
        names, this process refuses the tenant's next changes from memory. Asking the database for
        each would cost others nearly as much as the changes.
        """
        tenant_scope = caller.tenant_scope
        if tenant_scope is None:
            return caller
        with self._lock:
            wait = self._full.get(tenant_scope, 0.0) - now().timestamp()
        if wait > 0:
            raise self._change.refuse(wait)
        return replace(caller, on_write=lambda db: self._count_change(db, tenant_scope))

    def _count_change(self, db: Session, tenant_id: UUID) -> None:
        try:
            _take(db, self._change, tenant_id)
        except RateLimitedError as error:
            with self._lock:
                self._full[tenant_id] = now().timestamp() + error.retry_after
            raise

    def admit_attempt(self, caller: Principal, tenant_id: UUID) -> None:
        """Count one proof of a role of this tenant. A proof costs several calls to AWS."""
        if caller.tenant_scope not in {None, tenant_id}:
            return  # another tenant's key gets a 404, and must not use up this tenant's quota
        self._count(caller, (table.ATTEMPTS, tenant_id))

    def admit_role(self, caller: LinkPrincipal, tenant_id: UUID) -> None:
        """Count one role entered through this onboarding link, and an attempt."""
        self._count(caller, (table.ROLES_ENTERED, caller.link_id), (table.ATTEMPTS, tenant_id))

    def admit_check(self, caller: LinkPrincipal, tenant_id: UUID) -> None:
        """Count one check requested through this onboarding link, and an attempt."""
        self._count(caller, (table.CHECKS, caller.link_id), (table.ATTEMPTS, tenant_id))

    def admit_search_end(self, caller: LinkPrincipal) -> None:
        """Count one search ended through this onboarding link."""
        self._count(caller, (table.SEARCHES_ENDED, caller.link_id))

    def _count(self, caller: Principal, *limits: tuple[Limit, UUID]) -> None:
        """Count one in each quota, or raise RateLimitedError and count nothing.

        The attempt is always last, to prevent deadlocks.
        """
        quotas = [(limit.with_setting(self._config), subject) for limit, subject in limits]
        with self._db.read() as db:  # refused requests must not queue for the write lock
            for quota, subject in quotas:
                _look(db, quota, subject)
        with self._db.write(caller) as db:
            for quota, subject in quotas:
                _take(db, quota, subject)


def admits_message(db: Session, subject: UUID) -> bool:
    """Return whether to keep one more message of a stack, and count it in this transaction.

    `subject`: the connection; or the tenant, for Delete messages about roles that it has no
    connection to.
    """
    return _admits(_take, db, table.MESSAGES, subject)


def count_rotation(db: Session, caller: Principal, tenant_id: UUID) -> None:
    """Count a rotation that a bound key starts, in this transaction. Raises RateLimitedError.

    Unbound keys have no limit.
    """
    if not caller.is_vendor:
        _take(db, table.ROTATIONS, tenant_id)


def has_room_for_report(db: Session, tenant_id: UUID) -> bool:
    """Return whether `admits_report` would return True.

    It only reads, so refused reports do not queue for the write lock.
    """
    return _admits(_look, db, table.REPORTS, tenant_id)


def admits_report(db: Session, tenant_id: UUID) -> bool:
    """Return whether one more report of a refusal takes effect for this tenant.

    It is counted in this transaction.
    """
    return _admits(_take, db, table.REPORTS, tenant_id)


def _admits(
    count: Callable[[Session, Limit, UUID], None], db: Session, quota: Limit, subject: UUID
) -> bool:
    try:
        count(db, quota, subject)
    except RateLimitedError:
        return False
    return True


def _look(db: Session, quota: Limit, subject: UUID) -> None:
    """Raise RateLimitedError when there is no room for one more."""
    if (row := db.get(QuotaUse, (quota.name, subject))) is not None:
        _use(quota, row)


def _take(db: Session, quota: Limit, subject: UUID) -> None:
    key = {"name": quota.name, "id": subject}
    row = db.scalars(select(QuotaUse).from_statement(_LOCK), key).one()
    uses = _use(quota, row)
    row.number, row.counted, row.counted_before = uses.number, uses.counted, uses.before
    if row.counted == 1:
        _forget(db, quota.name, before=row.number - 1)


def _use(quota: Limit, row: QuotaUse) -> Uses:
    """Return the row's uses with one more. Raises RateLimitedError."""
    uses = Uses(row.number, row.counted, row.counted_before)
    if wait := SlidingWindow(*quota.window).count(uses, now().timestamp()):
        raise quota.refuse(wait)
    return uses


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
