"""The rotations of External IDs, and what single roles said to an External ID that their
connection is not paired with.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, foreign, mapped_column, relationship

from app.clock import now
from app.store.models.base import Base, Identified, same_tenant
from app.store.models.states import ExternalIdState, RotationState
from app.store.models.tenant import ExternalIdRow, TenantOwned


class Rotation(Identified, TenantOwned, Base):
    """The replacement of a tenant's External ID by another. How far it is, the states of the two
    tell.
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
    by_bound: Mapped[
        bool | None
    ]  # begun by a key that is bound to the tenant, which may then abandon it too
    started_at: Mapped[datetime] = mapped_column(default=now)
    ready_at: Mapped[
        datetime | None
    ]  # since when no verified connection waits; it completes by itself a day later

    old: Mapped[ExternalIdRow] = relationship(
        primaryjoin=lambda: foreign(Rotation.external_id_id) == ExternalIdRow.id,
        lazy="joined",
        viewonly=True,
    )
    new: Mapped[ExternalIdRow] = relationship(
        primaryjoin=lambda: foreign(Rotation.next_external_id_id) == ExternalIdRow.id,
        lazy="joined",
        viewonly=True,
    )

    @property
    def is_open(self) -> bool:
        """Whether it can still be completed: open, or ready."""
        return self.new.state is ExternalIdState.NEXT

    def state(self, waiting: int) -> RotationState:
        """Of a tenant's latest rotation; `waiting`: how many verified connections have not
        switched.
        """
        if self.is_open:
            return RotationState.OPEN if waiting else RotationState.READY
        if self.new.state is ExternalIdState.RETIRED:
            return RotationState.ABANDONED
        return (
            RotationState.RETIRED
            if self.old.state is ExternalIdState.RETIRED
            else RotationState.RETIRING
        )


class Trial(TenantOwned, Base):
    """What a connection's role said to an External ID that is to become its own, or is no longer.

    `accepted_at`: since when it accepts this ID and refuses strangers. `refused_at` and
    `refused_again_at`: two refusals at least a minute apart, each beside its own ID accepted.
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
