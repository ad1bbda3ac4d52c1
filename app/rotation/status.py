"""The status of a rotation: which connections it waits for, and how many have switched."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, func, select

from app.store.database import Session
from app.store.models import Connection, ConnectionStatus, ExternalIdRow, Rotation, RotationState
from app.store.models.external_id import IMPORTED


@dataclass(frozen=True)
class Counts:
    """The numbers of the tenant's verified connections: all, switched, and waiting to switch."""

    total: int
    switched: int
    waiting: int


@dataclass(frozen=True)
class RotationStatus:
    """The progress of a tenant's latest rotation.

    `external_id`: the External ID that the rotation replaces or has replaced.
    """

    state: RotationState
    emergency: bool
    external_id: str
    next_external_id: str
    started_at: datetime
    connections: Counts


def latest(db: Session, tenant_id: UUID) -> Rotation | None:
    query = select(Rotation).filter_by(tenant_id=tenant_id).order_by(Rotation.id.desc()).limit(1)
    # A query that waits for the tenant's lock returns related rows as they were before the wait. So
    # they are read again.
    return db.scalars(query.execution_options(populate_existing=True)).first()


def awaited(tenant_id: UUID) -> ColumnElement[bool]:
    """Return the condition for the tenant's verified connections that a rotation waits for.

    Connections with an imported External ID are left out, unless an emergency has withdrawn it.
    """
    imported = select(ExternalIdRow.id).where(
        ExternalIdRow.tenant_id == tenant_id, IMPORTED, ExternalIdRow.withdrawn_at.is_(None)
    )
    return and_(
        Connection.tenant_id == tenant_id,
        Connection.status == ConnectionStatus.VERIFIED,
        Connection.external_id_id.not_in(imported),
    )


def has_switched(rotation: Rotation) -> ColumnElement[bool]:
    return Connection.external_id_id == rotation.next_external_id_id


def waiting(rotation: Rotation) -> Select[UUID]:
    """Select the verified connections that wait to switch."""
    return select(Connection.id).where(awaited(rotation.tenant_id), ~has_switched(rotation))


def status_of(db: Session, rotation: Rotation) -> RotationStatus:
    counts = func.count(), func.count().filter(has_switched(rotation))
    verified = select(*counts).where(awaited(rotation.tenant_id))
    total, switched = db.execute(verified).one()
    left = total - switched
    state = rotation.state(left)
    if state is RotationState.ABANDONED:
        left = 0
    return RotationStatus(
        state=state,
        emergency=rotation.emergency,
        external_id=rotation.old.value,
        next_external_id=rotation.new.value,
        started_at=rotation.started_at,
        connections=Counts(total, switched, left),
    )
