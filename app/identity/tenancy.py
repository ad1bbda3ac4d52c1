"""The queries that read only what a principal can see: each filters by the principal's tenant."""

from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session, lazyload

from app.errors import NotFoundError
from app.identity.principals import REVOCATION_COUNTER, Principal
from app.settings.setting_types import Limit
from app.store.database import Lock
from app.store.models import Connection, ConnectionStatus, Tenant, TenantStatus

ConnectionKey = tuple[UUID, UUID]  # the ids of a tenant and of its connection
_FULL_RETRY_SECONDS = 3600  # an estimate: a limit stays full until something is deleted

# These statements are built once, because building a statement costs as much as running it. If the
# principal is not confined to a tenant, `confined_to` is the id of the tenant in the request.
_TENANT = select(Tenant).where(
    Tenant.id == bindparam("tenant_id"),
    Tenant.id == bindparam("confined_to"),
    Tenant.deleted_at.is_(None),
)
_OWNED = (
    select(Connection)
    .join(Connection.tenant)
    .where(
        Connection.id == bindparam("connection_id"),
        Connection.tenant_id == bindparam("tenant_id"),
        Connection.tenant_id == bindparam("confined_to"),
        Connection.status != ConnectionStatus.DELETED,
        Tenant.deleted_at.is_(None),
    )
)
# `key_share=True` means FOR NO KEY UPDATE: other transactions can still add rows that refer to the
# locked row.
_LOCKED_TENANT = _TENANT.with_for_update(of=Tenant, key_share=True)
_LOCKED = _OWNED.with_for_update(of=Connection, key_share=True)
# The query for issuing. Issuing does not need the proof and the approvals, because the connection's
# own row says whether credentials are issued.
_AT_COUNTER = _OWNED.options(
    lazyload(Connection.proof),
    lazyload(Connection.tenant),
    lazyload(Connection.approval),
    lazyload(Connection.move),
).add_columns(Tenant.status, Tenant.resumed_at, REVOCATION_COUNTER)


def tenant_of(db: Session, principal: Principal, tenant_id: UUID, *, lock: bool = False) -> Tenant:
    """Return the live tenant, if this principal can see it.

    Raises NotFoundError.
    """
    ids = _scoped(principal, tenant_id)
    if lock and ids["confined_to"] == tenant_id:
        Lock.TENANT.hold(db, tenant_id)
    return one_or_not_found(db, _LOCKED_TENANT if lock else _TENANT, ids)


def owned(
    db: Session, principal: Principal, tenant_id: UUID, connection_id: UUID, *, lock: bool = False
) -> Connection:
    """Return the tenant's live connection, if this principal can see it.

    The query filters by the tenant's and the connection's id. Raises NotFoundError.
    """
    ids = _scoped(principal, tenant_id, connection_id=connection_id)
    if lock and ids["confined_to"] == tenant_id:
        # The lock depends on both ids. So a principal that sends another tenant's connection with
        # its own tenant does not delay requests about that connection. One that computes an id for
        # the same lock delays them by the milliseconds until its 404, within its tenant's share.
        Lock.CONNECTION.hold(db, UUID(int=tenant_id.int ^ connection_id.int))
    return one_or_not_found(db, _LOCKED if lock else _OWNED, ids)


def lock_owned(
    db: Session, principal: Principal, tenant_id: UUID, connection_id: UUID
) -> Connection:
    """Lock the tenant and then its connection, and return the connection.

    A tenant is locked before its connections everywhere, so that transactions do not deadlock.
    Raises NotFoundError.
    """
    tenant_of(db, principal, tenant_id, lock=True)
    return owned(db, principal, tenant_id, connection_id, lock=True)


def owned_at_counter(
    db: Session, principal: Principal, tenant_id: UUID, connection_id: UUID
) -> tuple[int, Connection, TenantStatus, datetime | None]:
    """Return the revocation counter, the connection, and two columns of its tenant.

    They are from one statement. The columns are the tenant's status, and when it was resumed last.
    The connection is the one that `owned` returns. Raises NotFoundError.
    """
    ids = _scoped(principal, tenant_id, connection_id=connection_id)
    row = db.execute(_AT_COUNTER, ids).unique().one_or_none()
    if row is None:
        raise NotFoundError
    connection, status, resumed_at, counter = row
    return counter, connection, status, resumed_at


def _scoped(principal: Principal, tenant_id: UUID, **ids: UUID) -> dict[str, UUID]:
    """Return the parameters of the statements above."""
    return {"tenant_id": tenant_id, "confined_to": principal.tenant_scope or tenant_id, **ids}


def ensure_room(db: Session, live: Select[int], limit: Limit) -> None:
    """Raise RateLimitedError if the query counts as many rows as the limit allows.

    The caller must hold a lock that keeps the count valid until the transaction ends.
    """
    if db.scalars(live).one() >= limit.amount:
        raise limit.refuse(_FULL_RETRY_SECONDS)


Row = TypeVar("Row")


def one_or_not_found(db: Session, query: Select[Row], ids: dict[str, UUID] | None = None) -> Row:
    row = db.scalars(query, ids).unique().one_or_none()
    if row is None:
        raise NotFoundError
    return row
