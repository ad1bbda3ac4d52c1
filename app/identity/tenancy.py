"""Which rows a principal can see."""

from typing import TypeVar
from uuid import UUID

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session, lazyload

from app.errors import NotFoundError
from app.identity.principals import REVOCATION_COUNTER, Principal
from app.settings.declarations import Limit
from app.store import locks
from app.store.locks import Lock
from app.store.models import Connection, ConnectionStatus, Tenant, TenantStatus

ConnectionKey = tuple[UUID, UUID]  # the ids of a tenant and its connection

_FULL_RETRY_SECONDS = 3600  # a full limit stays full until something is deleted


# Built once: building a statement costs as much as running it. For a principal that is not confined
# to a tenant, `confined_to` is the tenant's own id.
_TENANT = select(Tenant).where(
    Tenant.id == bindparam("tenant_id"),
    Tenant.id == bindparam("confined_to"),
    Tenant.deleted_at.is_(None),
)
_OWNED = (
    select(Connection)
    .join(Tenant, Tenant.id == Connection.tenant_id)
    .where(
        Connection.id == bindparam("connection_id"),
        Connection.tenant_id == bindparam("tenant_id"),
        Connection.tenant_id == bindparam("confined_to"),
        Connection.status != ConnectionStatus.DELETED,
        Tenant.deleted_at.is_(None),
    )
)
# FOR NO KEY UPDATE: rows that refer to these rows can be added meanwhile.
_LOCKED_TENANT = _TENANT.with_for_update(of=Tenant, key_share=True)
_LOCKED = _OWNED.with_for_update(of=Connection, key_share=True)
# Issuing needs neither the proof nor the requests: the connection's own row says whether it issues.
_AT_COUNTER = _OWNED.options(
    lazyload(Connection.proof),
    lazyload(Connection.tenant),
    lazyload(Connection.approval),
    lazyload(Connection.move),
).add_columns(Tenant.status, REVOCATION_COUNTER)


def tenant_of(db: Session, principal: Principal, tenant_id: UUID, *, lock: bool = False) -> Tenant:
    """Return the live tenant, if this principal can see it.

    Raises NotFoundError.
    """
    ids = _scoped(principal, tenant_id)
    if lock and ids["confined_to"] == tenant_id:
        locks.hold(db, Lock.TENANT, tenant_id)
    return one_or_not_found(db, _LOCKED_TENANT if lock else _TENANT, ids)


def owned(
    db: Session, principal: Principal, tenant_id: UUID, connection_id: UUID, *, lock: bool = False
) -> Connection:
    """Return the tenant's live connection, if this principal can see it.

    The query names tenant and connection. Raises NotFoundError.
    """
    ids = _scoped(principal, tenant_id, connection_id=connection_id)
    if lock and ids["confined_to"] == tenant_id:
        locks.hold(db, Lock.CONNECTION, connection_lock_id(tenant_id, connection_id))
    return one_or_not_found(db, _LOCKED if lock else _OWNED, ids)


def connection_lock_id(tenant_id: UUID, connection_id: UUID) -> UUID:
    """Return the id of a connection's lock, computed from both ids.

    A principal that names another tenant's connection with its own tenant therefore does not lock
    it.
    """
    return UUID(int=tenant_id.int ^ connection_id.int)


def owned_at_counter(
    db: Session, principal: Principal, tenant_id: UUID, connection_id: UUID
) -> tuple[int, Connection, TenantStatus]:
    """Return the revocation counter, the connection and its tenant's status.

    One statement reads all three. The connection is the same as from `owned`. Raises NotFoundError.
    """
    ids = _scoped(principal, tenant_id, connection_id=connection_id)
    row = db.execute(_AT_COUNTER, ids).unique().one_or_none()
    if row is None:
        raise NotFoundError
    connection, status, counter = row
    return counter, connection, status


def _scoped(principal: Principal, tenant_id: UUID, **ids: UUID) -> dict[str, UUID]:
    """Return the parameters of the statements above."""
    return {"tenant_id": tenant_id, "confined_to": principal.tenant_scope or tenant_id, **ids}


def ensure_room(db: Session, live: Select[int], limit: Limit) -> None:
    """Ensure that the query counts fewer rows than the limit.

    Locks keep the count valid until the transaction ends. Raises RateLimitedError.
    """
    if db.scalars(live).one() >= limit.amount:
        raise limit.refuse(_FULL_RETRY_SECONDS)


Row = TypeVar("Row")


def one_or_not_found(db: Session, query: Select[Row], ids: dict[str, UUID] | None = None) -> Row:
    row = db.scalars(query, ids).unique().one_or_none()
    if row is None:
        raise NotFoundError
    return row
