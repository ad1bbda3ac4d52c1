"""The tables of tenants, of their External IDs, and of the accounts that they declare."""

import unicodedata
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, declared_attr, mapped_column, relationship, validates

from app.errors import ConflictError
from app.store.models.base import (
    Base,
    CreatedAt,
    Identified,
    Text12,
    Text200,
    in_code_points,
    index_where,
    state_column,
    unique_where,
)
from app.store.models.states import ExternalIdState, TenantStatus, ensure_active
from app.store.models.suspension import Suspendable, Suspension

NAME_MAX = 200  # characters
AFTER_ALL_LETTERS = "\U0010ffff"  # Unicode's last code point, which no text contains


def folded(name: str) -> str:
    """Return the name for comparisons that ignore case and Unicode's variants of characters."""
    once = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", once)[:NAME_MAX]  # casefold lengthens a few letters


def _in_state(state: str, **options: Any) -> Any:
    """Return the relationship to the tenant's External ID in this state."""
    join = f"and_(foreign(ExternalIdRow.tenant_id) == Tenant.id, ExternalIdRow.state == '{state}')"
    return relationship(primaryjoin=join, viewonly=True, **options)


class Tenant(Identified, Suspendable, Base):
    """One customer of the vendor."""

    __tablename__ = "tenants"
    # A reference is the vendor's own id for a customer. It can be used again when its tenant is
    # deleted.
    __table_args__ = (
        unique_where("uq_tenants_live_reference", "reference", "deleted_at IS NULL"),
        Index("ix_tenants_name_folded", "name_folded", "id"),
        Index("ix_tenants_status", "status", "id"),
        Index("ix_tenants_made_by", "made_by", "created_at"),
    )

    name: Mapped[Text200]
    name_folded: Mapped[str] = mapped_column(in_code_points(NAME_MAX), server_default=text("''"))
    reference: Mapped[Text200 | None]
    status: Mapped[TenantStatus] = state_column(TenantStatus, "status", default=TenantStatus.ACTIVE)
    created_at: Mapped[CreatedAt]
    made_by: Mapped[UUID | None]  # an API key; None: the operator
    deleted_at: Mapped[datetime | None]
    # Every valid registration token contains this number. Raising it voids all earlier tokens.
    registration_generation: Mapped[int] = mapped_column(default=1, server_default=text("1"))

    # True if the tenant's roles may only be in its declared accounts (app/tenants/tenants.py)
    declares_accounts: Mapped[bool] = mapped_column(default=False, server_default=false())
    # No column: the declared accounts, if app/tenants/tenants.py has read them
    accounts = cast("list[str] | None", None)

    # The External ID of new connections. During a rotation, some connections have another External
    # ID (app/rotation/rotations.py).
    current: Mapped["ExternalIdRow | None"] = _in_state("current", lazy="joined")

    # During a rotation, the External ID that is to become current
    next: Mapped["ExternalIdRow | None"] = _in_state("next", uselist=False)

    @validates("name")
    def _fold(self, _: str, name: str) -> str:
        self.name_folded = folded(name)
        return name

    @property
    def external_id(self) -> str | None:
        return self.current.value if self.current else None

    def suspend(self, suspension: Suspension) -> None:
        self.begin_suspension(suspension)
        self.status = TenantStatus.SUSPENDED

    def resume(self) -> None:
        if self.status is not TenantStatus.SUSPENDED:
            raise ConflictError("This tenant is not suspended.")
        self.status = TenantStatus.ACTIVE
        self.end_suspension()

    def ensure_active(self) -> None:
        ensure_active(self.status)


class TenantOwned:
    """A row that belongs to one tenant.

    Read connections through `identity.tenancy.owned`, which filters by tenant.
    """

    @declared_attr
    def tenant_id(cls) -> Mapped[UUID]:  # noqa: N805  SQLAlchemy passes the class
        return mapped_column(ForeignKey("tenants.id"))


ROTATING = text("state IN ('next', 'retiring')")  # the condition of a partial index


class ExternalIdRow(Identified, TenantOwned, Base):
    """An External ID. Retired External IDs are kept, so that none is ever given out again."""

    __tablename__ = "external_ids"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),  # target of the composite foreign key of connections
        unique_where("uq_external_ids_one_current", "tenant_id", "state = 'current'"),
        unique_where("uq_external_ids_one_next", "tenant_id", "state = 'next'"),
        index_where("ix_external_ids_rotating", "tenant_id", where=ROTATING),
    )

    value: Mapped[str] = mapped_column(String(80), unique=True)
    state: Mapped[ExternalIdState] = state_column(ExternalIdState, "state")
    created_at: Mapped[CreatedAt]
    retired_at: Mapped[datetime | None]
    withdrawn_at: Mapped[datetime | None]  # set in an emergency rotation

    @property
    def is_withdrawn(self) -> bool:
        """Return whether credentials are no longer issued with it."""
        return self.withdrawn_at is not None or self.state is ExternalIdState.RETIRED


class TenantAccount(TenantOwned, Base):
    """An AWS account that a tenant declared.

    `Tenant.declares_accounts` says whether the tenant's roles must be in such accounts.
    """

    __tablename__ = "tenant_accounts"
    __table_args__ = ({"sqlite_with_rowid": False},)  # a rowid would need a second b-tree

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    account_id: Mapped[Text12] = mapped_column(primary_key=True)
