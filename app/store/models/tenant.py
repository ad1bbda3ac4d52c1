"""The tables of tenants and of what is theirs, except connections and their proofs.

These are External IDs with their rotations, declared accounts, API keys, onboarding links, stacks'
registrations, and approvals.
"""

import enum
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    JSON,
    Boolean,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from app.clock import now
from app.errors import ConflictError, SuspendedError
from app.ids import EXTERNAL_ID_MAX, EXTERNAL_ID_PREFIX
from app.settings.return_urls import LENGTH_MAX as RETURN_URL_MAX
from app.store.models.base import (
    Base,
    CreatedAt,
    Flag,
    Identified,
    Text12,
    Text16,
    Text64,
    Text128,
    Text200,
    Text512,
    index_where,
    row_in,
    same_tenant,
)
from app.store.models.suspension import Suspendable, Suspension

NAME_MAX = 200  # characters
# Every database compares and sorts such a text by code points. So an index can serve searches by
# prefix.
_CODE_POINTS = String(NAME_MAX, collation="C").with_variant(String(NAME_MAX), "sqlite")
AFTER_ALL_LETTERS = "\U0010ffff"  # Unicode's last code point, which no text contains
# The condition of a tenant's relationship to its External ID in a state
_IN_STATE = "and_(foreign(ExternalIdRow.tenant_id) == Tenant.id, ExternalIdRow.state == '{}')"
# Conditions of partial indexes
ROTATING = text("state IN ('next', 'retiring')")
IMPORTED = literal_column("external_ids.state = 'imported'", Boolean)


class TenantStatus(enum.StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"

    def ensure_active(self) -> None:
        """Raise SuspendedError for a tenant that is not active."""
        if self is not TenantStatus.ACTIVE:
            raise SuspendedError("This tenant is suspended; resume it first.")


class ExternalIdState(enum.StrEnum):
    """The states of an External ID. `next` and `retiring` occur only in a rotation.

    A live tenant has exactly one External ID in the state `current`. An `imported` one is that of
    the connections with which it was imported, and no other (app/imports/imports.py).
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
        index_where(
            "uq_tenants_live_reference", "reference", where=text("deleted_at IS NULL"), unique=True
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
    # Every valid registration token contains this number. Raising it voids all earlier tokens.
    registration_generation: Mapped[int] = mapped_column(default=1, server_default=text("1"))

    # True if the tenant's roles may only be in its declared accounts (app/tenants/tenants.py)
    declares_accounts: Mapped[Flag]
    # No column: the declared accounts, if app/tenants/tenants.py has read them
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
        self.status = TenantStatus.ACTIVE
        self.end_suspension()

    def ensure_active(self) -> None:
        self.status.ensure_active()


class TenantOwned:
    """A row that belongs to one tenant.

    Read connections through `identity.tenancy.owned`, which filters by tenant.
    """

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))


class ExternalIdRow(Identified, TenantOwned, Base):
    """An External ID. Retired External IDs are kept, so that none is ever given out again."""

    __tablename__ = "external_ids"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),  # target of the composite foreign key of connections
        index_where(
            "uq_external_ids_one_current", "tenant_id", where=text("state = 'current'"), unique=True
        ),
        index_where(
            "uq_external_ids_one_next", "tenant_id", where=text("state = 'next'"), unique=True
        ),
        index_where("ix_external_ids_rotating", "tenant_id", where=ROTATING),
        index_where("ix_external_ids_imported", "tenant_id", where=text("state = 'imported'")),
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


class TenantAccount(TenantOwned, Base):
    """An AWS account that a tenant declared.

    `Tenant.declares_accounts` says whether the tenant's roles must be in such accounts.
    """

    __tablename__ = "tenant_accounts"
    __table_args__ = ({"sqlite_with_rowid": False},)  # a rowid would need a second b-tree

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    account_id: Mapped[Text12] = mapped_column(primary_key=True)


class ApiKey(Identified, Base):
    """An API key.

    Only the SHA-256 of its text is stored: 256 random bits need no slow hash and no salt.
    """

    __tablename__ = "api_keys"

    # The 16 hex digits in the key's text, which are not secret
    lookup: Mapped[Text16] = mapped_column(unique=True)
    digest: Mapped[bytes]
    name: Mapped[Text200]
    # Bits of identity.principals.Scope, so that a subset test is one comparison, also in SQL
    scope_bits: Mapped[int]
    # The scopes that a key with keys:delegate may give to other keys
    may_give_bits: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    # The only tenant that the key may act for; None: any tenant
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenants.id"), index=True)
    # The names of the permission sets that the key is for; None: all permission sets
    permission_sets: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    # The key that created this key; None: the operator created it
    made_by: Mapped[UUID | None] = mapped_column(index=True)
    # The successor, which inherited the keys and links that this key created
    replaced_by: Mapped[UUID | None] = mapped_column(index=True)
    created_at: Mapped[CreatedAt]
    last_used_at: Mapped[datetime | None]  # rounded down to the hour (app/identity/key_uses.py)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Registration(Identified, TenantOwned, Base):
    """A stack's message that took effect. The row keeps a second delivery from taking effect.

    The unique constraint includes the tenant. Without it, another tenant could send a message with
    the same ids first, and this tenant's message would count as a second delivery.
    """

    __tablename__ = "registrations"
    __table_args__ = (UniqueConstraint("tenant_id", "stack_id", "request_id"),)

    stack_id: Mapped[Text512]
    request_id: Mapped[Text128]
    created_at: Mapped[CreatedAt]


class LinkStatus(enum.StrEnum):
    """The status of an onboarding link.

    A link is `connected` once a role that was connected through it is verified, even if the link
    has expired since.
    """

    OPEN = "open"
    CONNECTED = "connected"
    EXPIRED = "expired"
    REVOKED = "revoked"


class OnboardingLink(Identified, TenantOwned, Base):
    """A URL that opens one tenant's onboarding page without a sign-in.

    Only the SHA-256 of its token is stored.
    """

    __tablename__ = "onboarding_links"
    __table_args__ = (Index("ix_onboarding_links_tenant", "tenant_id", "id"),)

    digest: Mapped[bytes] = mapped_column(unique=True)
    permission_set: Mapped[Text64]
    region: Mapped[str] = mapped_column(String(32))  # the region that the page preselects
    made_by: Mapped[UUID | None] = mapped_column(index=True)  # an API key; None: the operator
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    # When a form of its page was first sent. Mail scanners open pages, but send no forms.
    opened_at: Mapped[datetime | None]
    # Where the page's button leads once the role is connected
    return_url: Mapped[str | None] = mapped_column(String(RETURN_URL_MAX))

    # No columns: app/onboarding/page_links.py fills them in for one link
    status = cast("LinkStatus | None", None)
    connections = cast("Sequence[Any]", ())


class ApprovalSubject(enum.StrEnum):
    PERMISSION_SET = "permission_set"


class ApprovalDecision(enum.StrEnum):
    """The decision on a request. Only the vendor can approve a request."""

    APPROVED = "approved"
    NOT_NEEDED = "not_needed"  # the permission set only reads, or the tenant declared the account
    WITHDRAWN = "withdrawn"


class Approval(Identified, TenantOwned, Base):
    """A request for a permission set of a connection, and the decision on the request.

    The vendor has to approve some requests. `Connection.approval` is the waiting request for the
    connection's own permission set. `Connection.move` is the request to move the role to another
    permission set, until the role has it or the request is withdrawn. All other rows are history.
    """

    __tablename__ = "approvals"
    __table_args__ = (
        same_tenant("connection_id", "connections", ondelete="CASCADE"),
        Index("ix_approvals_connection_id", "connection_id"),
    )

    connection_id: Mapped[UUID]
    subject: Mapped[ApprovalSubject] = mapped_column(default=ApprovalSubject.PERMISSION_SET)
    permission_set: Mapped[Text64]
    # For a move: which version of the requested permission set the role has; None: it has none yet
    version: Mapped[int | None]
    reason: Mapped[Text200]
    asked_by: Mapped[Text16]  # the kind of actor
    asked_by_id: Mapped[Text64 | None]
    asked_at: Mapped[CreatedAt]
    decision: Mapped[ApprovalDecision | None]
    decided_by: Mapped[Text16 | None]
    decided_by_id: Mapped[Text64 | None]
    decided_at: Mapped[datetime | None]

    @property
    def waits(self) -> bool:
        return self.decision is None

    def decide(self, decision: ApprovalDecision, actor_kind: str, actor_id: str | None) -> None:
        """Store the decision and its actor. Do nothing if the request is decided already."""
        if self.waits:
            self.decision, self.decided_at = decision, now()
            self.decided_by, self.decided_by_id = actor_kind, actor_id
