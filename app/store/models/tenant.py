"""The tables of tenants and of their declared accounts, and the columns of a suspension."""

import enum
import unicodedata
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from app.clock import now
from app.errors import ConflictError, SuspendedError
from app.store.models.base import (
    Base,
    CreatedAt,
    Flag,
    Identified,
    TenantOwned,
    Text12,
    Text16,
    Text200,
)
from app.store.models.external_id import ExternalIdRow

NAME_MAX = 200  # characters
# Compared and sorted by code points, so an index can serve searches by prefix
_CODE_POINTS = String(NAME_MAX, collation="C")
AFTER_ALL_LETTERS = "\U0010ffff"  # Unicode's last code point, which no text contains
# The condition of a tenant's relationship to its External ID in a state
_IN_STATE = "and_(foreign(ExternalIdRow.tenant_id) == Tenant.id, ExternalIdRow.state == '{}')"


class Suspension(NamedTuple):
    """A suspension. `by`: the kind of actor. `bound`: whether the actor is bound to one tenant."""

    by: str
    bound: bool
    reason: str


class Suspendable:
    """The columns of a suspension, which are None when the row is not suspended."""

    suspended_at: Mapped[datetime | None]
    suspended_by: Mapped[Text16 | None]
    suspended_by_bound: Mapped[bool | None]
    suspended_reason: Mapped[Text200 | None]

    @property
    def suspended(self) -> dict[str, Any] | None:
        """The time, the kind of actor and the reason of the suspension; None without one."""
        if self.suspended_at is None:
            return None
        return {"at": self.suspended_at, "by": self.suspended_by, "reason": self.suspended_reason}

    @property
    def suspension(self) -> dict[str, Any] | None:
        """Return `suspended`, and whether a key that is bound to a tenant suspended the row."""
        return self.suspended and {**self.suspended, "bound": self.suspended_by_bound}

    def begin_suspension(self, suspension: Suspension) -> None:
        self.suspended_at = now()
        self.suspended_by, self.suspended_by_bound, self.suspended_reason = suspension

    def end_suspension(self) -> None:
        self.suspended_at = self.suspended_by = None
        self.suspended_by_bound = self.suspended_reason = None


class TenantStatus(enum.StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"

    def ensure_active(self) -> None:
        """Raise SuspendedError for a tenant that is not active."""
        if self is not TenantStatus.ACTIVE:
            raise SuspendedError("This tenant is suspended; resume it first.")


def folded(name: str) -> str:
    """Return the name for comparisons that ignore case and Unicode's variants of characters."""
    once = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", once)[:NAME_MAX]  # casefold lengthens a few letters


class Tenant(Identified, Suspendable, Base):
    """One customer of the vendor."""

    __tablename__ = "tenants"
    # A reference is the vendor's own id for a customer. It can be used again when its tenant is
    # deleted.
    __table_args__ = (
        Index(
            "uq_tenants_live_reference",
            "reference",
            postgresql_where=text("deleted_at IS NULL"),
            unique=True,
        ),
        Index("ix_tenants_name_folded", "name_folded", "id"),
        Index("ix_tenants_status", "status", "id"),
        Index("ix_tenants_made_by", "made_by", "created_at"),
    )

    name: Mapped[Text200]
    name_folded: Mapped[str] = mapped_column(_CODE_POINTS, server_default=text("''"))
    reference: Mapped[Text200 | None]
    status: Mapped[TenantStatus] = mapped_column(default=TenantStatus.ACTIVE)
    created_at: Mapped[CreatedAt]
    made_by: Mapped[UUID | None]  # an API key; None: the operator
    deleted_at: Mapped[datetime | None]
    # When it was resumed last. Its sessions from before are not issued again, because the customer
    # may have revoked them meanwhile.
    resumed_at: Mapped[datetime | None]
    # Every valid registration token contains this number. Raising it voids all earlier tokens.
    registration_generation: Mapped[int] = mapped_column(default=1, server_default=text("1"))

    # True if roles may only be in declared accounts (app/tenants/declared_accounts.py)
    declares_accounts: Mapped[Flag]
    # No column: the declared accounts, if that module has read them
    accounts = cast("list[str] | None", None)

    # The External ID of new connections. During a rotation, some connections have another External
    # ID (app/rotation/rotations.py).
    current: Mapped["ExternalIdRow | None"] = relationship(
        primaryjoin=_IN_STATE.format("current"), viewonly=True, lazy="joined"
    )

    # During a rotation, the External ID that is to become current
    next: Mapped["ExternalIdRow | None"] = relationship(
        primaryjoin=_IN_STATE.format("next"), viewonly=True, uselist=False
    )

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
        self.status, self.resumed_at = TenantStatus.ACTIVE, now()
        self.end_suspension()

    def ensure_active(self) -> None:
        self.status.ensure_active()


class TenantAccount(TenantOwned, Base):
    """An AWS account that a tenant declared.

    `Tenant.declares_accounts` says whether the tenant's roles must be in such accounts.
    """

    __tablename__ = "tenant_accounts"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    account_id: Mapped[Text12] = mapped_column(primary_key=True)
