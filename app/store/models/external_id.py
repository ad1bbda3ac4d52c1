"""External IDs, and their rotations."""

import enum
from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, Index, String, UniqueConstraint, literal_column, text
from sqlalchemy.orm import Mapped, mapped_column

from app.ids import EXTERNAL_ID_MAX, EXTERNAL_ID_PREFIX
from app.store.models.base import Base, CreatedAt, Identified, TenantOwned, row_in, same_tenant

# Conditions of partial indexes
ROTATING = text("state IN ('next', 'retiring')")
IMPORTED = literal_column("external_ids.state = 'imported'", Boolean)


class ExternalIdState(enum.StrEnum):
    """The states of an External ID. `next` and `retiring` occur only in a rotation.

    A live tenant has exactly one External ID in the state `current`. An `imported` one is used only
    by the connections with which it was imported (app/imports/imports.py).
    """

    IMPORTED = "imported"
    NEXT = "next"
    CURRENT = "current"
    RETIRING = "retiring"
    RETIRED = "retired"


class ExternalIdOrigin(enum.StrEnum):
    """Who made an External ID: Deputy, or another system of the vendor."""

    DEPUTY = "deputy"
    IMPORTED = "imported"


class RotationState(enum.StrEnum):
    """The state of a rotation.

    A rotation is `open` until all verified connections have switched to the next External ID. It is
    then `ready`.
    """

    OPEN = "open"
    READY = "ready"
    RETIRING = "retiring"
    RETIRED = "retired"
    ABANDONED = "abandoned"


class ExternalIdRow(Identified, TenantOwned, Base):
    """An External ID. Retired External IDs are kept, so that none is ever given out again."""

    __tablename__ = "external_ids"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),  # target of the composite foreign key of connections
        Index(
            "uq_external_ids_one_current",
            "tenant_id",
            postgresql_where=text("state = 'current'"),
            unique=True,
        ),
        Index(
            "uq_external_ids_one_next",
            "tenant_id",
            postgresql_where=text("state = 'next'"),
            unique=True,
        ),
        Index("ix_external_ids_rotating", "tenant_id", postgresql_where=ROTATING),
        Index("ix_external_ids_imported", "tenant_id", postgresql_where=text("state = 'imported'")),
    )

    value: Mapped[str] = mapped_column(String(EXTERNAL_ID_MAX), unique=True)
    state: Mapped[ExternalIdState]
    created_at: Mapped[CreatedAt]
    retired_at: Mapped[datetime | None]
    withdrawn_at: Mapped[datetime | None]  # set in an emergency rotation

    @property
    def origin(self) -> ExternalIdOrigin:
        ours = self.value.startswith(EXTERNAL_ID_PREFIX)
        return ExternalIdOrigin.DEPUTY if ours else ExternalIdOrigin.IMPORTED

    @property
    def is_withdrawn(self) -> bool:
        """Return whether credentials are no longer issued with it."""
        return self.withdrawn_at is not None or self.state is ExternalIdState.RETIRED


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

    old: Mapped[ExternalIdRow] = row_in("Rotation.external_id_id", "ExternalIdRow", "joined")
    new: Mapped[ExternalIdRow] = row_in("Rotation.next_external_id_id", "ExternalIdRow", "joined")

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
