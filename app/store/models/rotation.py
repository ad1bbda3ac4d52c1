"""The tables of External ID rotations, and of roles' answers to External IDs in a rotation."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.store.models.base import Base, CreatedAt, Identified, same_tenant
from app.store.models.states import ExternalIdState, RotationState
from app.store.models.tenant import ExternalIdRow, TenantOwned


def _external_id(column: str) -> Any:
    """Return the relationship to the External ID whose row id is in this column of a rotation."""
    join = f"foreign(Rotation.{column}) == ExternalIdRow.id"
    return relationship(primaryjoin=join, lazy="joined", viewonly=True)


class Rotation(Identified, TenantOwned, Base):
    """The replacement of a tenant's External ID by another one.

    The states of the two External IDs show the rotation's progress.
    """

    __tablename__ = "rotations"
    __table_args__ = (
        same_tenant("external_id_id", "external_ids"),
        same_tenant("next_external_id_id", "external_ids"),
        Index("ix_rotations_tenant_id", "tenant_id", "id"),
    )

    external_id_id: Mapped[UUID]
    next_external_id_id: Mapped[UUID]
    emergency: Mapped[bool]
    # True if a key that is bound to the tenant started it. Only then may such a key abandon it.
    by_bound: Mapped[bool | None]
    started_at: Mapped[CreatedAt]
    # Since when all verified connections have switched. A day later the rotation completes itself.
    ready_at: Mapped[datetime | None]

    old: Mapped[ExternalIdRow] = _external_id("external_id_id")
    new: Mapped[ExternalIdRow] = _external_id("next_external_id_id")

    @property
    def is_open(self) -> bool:
        """Return whether it is open or ready, so that it can still be completed."""
        return self.new.state is ExternalIdState.NEXT

    def state(self, waiting: int) -> RotationState:
        """Return the state of a tenant's latest rotation.

        `waiting`: the number of verified connections that have not switched.
        """
        if self.is_open:
            return RotationState.OPEN if waiting else RotationState.READY
        if self.new.state is ExternalIdState.RETIRED:
            return RotationState.ABANDONED
        if self.old.state is ExternalIdState.RETIRED:
            return RotationState.RETIRED
        return RotationState.RETIRING


class ExternalIdCheck(TenantOwned, Base):
    """How a connection's role answered to an External ID other than the connection's own.

    The other External ID is the next one or the retiring one. `accepted_at`: since when the role
    passes proofs with it. `refused_at` and `refused_again_at`: two times at which the role refused
    it, but accepted the connection's own. They are at least a minute apart.
    """

    __tablename__ = "external_id_trials"
    __table_args__ = (
        same_tenant("connection_id", "connections", ondelete="CASCADE"),
        same_tenant("external_id_id", "external_ids"),
    )

    connection_id: Mapped[UUID] = mapped_column(primary_key=True)
    external_id_id: Mapped[UUID] = mapped_column(primary_key=True)
    accepted_at: Mapped[datetime | None]
    refused_at: Mapped[datetime | None]
    refused_again_at: Mapped[datetime | None]
