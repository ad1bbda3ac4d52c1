"""Which rows a caller can see."""

from typing import TypeVar
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, lazyload

from app.access.callers import EPOCH, AnyCaller
from app.errors import NotFoundError, RateLimitedError
from app.store.models import Connection, ConnectionStatus, Tenant, TenantStatus

_FULL_RETRY_SECONDS = 3600  # a full limit stays full until something is deleted


def tenant_of(db: Session, caller: AnyCaller, tenant_id: UUID, *, lock: bool = False) -> Tenant:
    """The live tenant, if this caller can see it. Raises NotFoundError."""
    query = select(Tenant).where(Tenant.id == tenant_id, Tenant.deleted_at.is_(None))
    if caller.tenant_id is not None:
        query = query.where(Tenant.id == caller.tenant_id)
    return one_or_not_found(db, query.with_for_update(of=Tenant) if lock else query)


def owned(db: Session, caller: AnyCaller, tenant_id: UUID, connection_id: UUID, *, lock: bool = False) -> Connection:
    """The tenant's live connection, if this caller can see it (the query names both). Raises NotFoundError."""
    query = _owned(caller, tenant_id, connection_id)
    return one_or_not_found(db, query.with_for_update(of=Connection) if lock else query)


def owned_at_epoch(
    db: Session, caller: AnyCaller, tenant_id: UUID, connection_id: UUID
) -> tuple[int, Connection, TenantStatus]:
    """The epoch, the connection as from `owned`, and its tenant's status, in one statement. Raises NotFoundError."""
    query = _owned(caller, tenant_id, connection_id).options(lazyload(Connection.proof), lazyload(Connection.tenant))
    row = db.execute(query.add_columns(Tenant.status, EPOCH)).unique().one_or_none()
    if row is None:
        raise NotFoundError
    connection, status, epoch = row
    return epoch, connection, status


def _owned(caller: AnyCaller, tenant_id: UUID, connection_id: UUID) -> Select[Connection]:
    query = (
        select(Connection)
        .join(Tenant, Tenant.id == Connection.tenant_id)
        .where(
            Connection.id == connection_id,
            Connection.tenant_id == tenant_id,
            Connection.status != ConnectionStatus.DELETED,
            Tenant.deleted_at.is_(None),
        )
    )
    return query.where(Connection.tenant_id == caller.tenant_id) if caller.tenant_id is not None else query


def ensure_room(db: Session, live: Select[int], most: int, refusal: str) -> None:
    """Raises RateLimitedError when that many are counted. Locks make the count hold until the transaction ends."""
    if (db.scalar(live) or 0) >= most:
        raise RateLimitedError(refusal, retry_after=_FULL_RETRY_SECONDS)


Row = TypeVar("Row")


def one_or_not_found(db: Session, query: Select[Row]) -> Row:
    row = db.scalars(query).unique().one_or_none()
    if row is None:
        raise NotFoundError
    return row
