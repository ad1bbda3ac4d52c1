"""The tables. What must never happen is refused here by the database itself, not only by the code above.

- a role can't be paired with another tenant's External ID (composite foreign key; invariant 3);
- an External ID is unique over all time, and a tenant has one current one (invariant 4); triggers in the migration
  refuse to change or delete one, and to change or delete an audit event;
- a (tenant, role ARN) is one row: a live connection, or the tombstone of a deleted one (invariant 12);
- whatever takes something away from a key, a tenant or a connection moves the configuration epoch in the same
  transaction (triggers in the migration), by which every process knows that its memory is out of date (invariant 8).

Deleted tenants and connections stay as rows, so that nothing of theirs is ever handed to somebody else.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, declared_attr, foreign, mapped_column, relationship, validates

from app import schedule, states
from app.audit_event import ISSUED, NOT_ISSUED, AuditEvent
from app.db import now
from app.errors import ConflictError, SuspendedError
from app.ids import ExternalId, Grant, RoleArn, new_id
from app.names import NAME_MAX, folded
from app.states import ConnectionStatus, ExternalIdState, TenantStatus, Verdict, ensure_active, why_not
from app.tables import Base, Suspendable, Suspension, in_code_points, state_column, unique_where

__all__ = [
    "ISSUED",
    "NOT_ISSUED",
    "ApiKey",
    "AuditEvent",
    "Connection",
    "ConnectionStatus",
    "ExternalIdRow",
    "ExternalIdState",
    "OnboardingLink",
    "Proof",
    "Registration",
    "Tenant",
    "TenantOwned",
    "TenantStatus",
    "Verdict",
    "ensure_active",
]

_REPORTS_APART = timedelta(minutes=1)
_FRESH = timedelta(days=1)  # of a proof that an approval may rest on


class Tenant(Suspendable, Base):
    """One customer of the vendor."""

    __tablename__ = "tenants"
    # The vendor's own id for a customer; free again once the tenant is deleted.
    __table_args__ = (
        unique_where("uq_tenants_live_reference", "reference", "deleted_at IS NULL"),
        Index("ix_tenants_name_folded", "name_folded", "id"),
        Index("ix_tenants_status", "status", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(NAME_MAX))
    name_folded: Mapped[str] = mapped_column(in_code_points(NAME_MAX), server_default=text("''"))
    reference: Mapped[str | None] = mapped_column(String(200))
    status: Mapped[TenantStatus] = mapped_column(
        state_column(TenantStatus, "status"), default=TenantStatus.ACTIVE
    )
    created_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]
    # What its registration tokens must name; raising it voids those that customers hold.
    registration_generation: Mapped[int] = mapped_column(default=1, server_default=text("1"))

    # Whether it has a list of the accounts that its roles may be in. See app/accounts.py.
    declares_accounts: Mapped[bool] = mapped_column(default=False, server_default=false())

    # The newest External ID; the older ones are history that only the audit log and the database care about.
    current: Mapped["ExternalIdRow | None"] = relationship(
        primaryjoin="and_(foreign(ExternalIdRow.tenant_id) == Tenant.id, ExternalIdRow.state == 'current')",
        viewonly=True,
        lazy="joined",
    )

    declared: Mapped[list[Any]] = relationship(
        "TenantAccount", viewonly=True, order_by="TenantAccount.account_id"
    )

    @property
    def accounts(self) -> list[str] | None:
        """The AWS accounts that its roles may be in; None: any."""
        return [found.account_id for found in self.declared] if self.declares_accounts else None

    @validates("name")
    def _fold(self, _: str, name: str) -> str:
        self.name_folded = folded(name)
        return name

    @property
    def external_id(self) -> str | None:
        return self.current.value if self.current else None

    def suspend(self, suspension: Suspension) -> None:
        if self.status is TenantStatus.SUSPENDED:
            raise ConflictError("This tenant is suspended already.")
        self.status = TenantStatus.SUSPENDED
        self.note_suspension(suspension)

    def resume(self) -> None:
        if self.status is not TenantStatus.SUSPENDED:
            raise ConflictError("This tenant is not suspended.")
        self.status = TenantStatus.ACTIVE
        self.note_suspension(None)

    def ensure_active(self) -> None:
        ensure_active(self.status)


class TenantOwned:
    """A row that belongs to one tenant. Such rows are read through `access.owned`, which filters by tenant."""

    @declared_attr
    def tenant_id(cls) -> Mapped[UUID]:  # noqa: N805  SQLAlchemy passes the class
        return mapped_column(ForeignKey("tenants.id"))


class ExternalIdRow(TenantOwned, Base):
    """An External ID, for ever: retired ones stay, so that none is ever issued twice."""

    __tablename__ = "external_ids"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),  # what the composite foreign key of connections points at
        unique_where("uq_external_ids_one_current", "tenant_id", "state = 'current'"),
        unique_where("uq_external_ids_one_next", "tenant_id", "state = 'next'"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    value: Mapped[str] = mapped_column(String(80), unique=True)
    state: Mapped[ExternalIdState] = mapped_column(state_column(ExternalIdState, "state"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    retired_at: Mapped[datetime | None]


class Proof(TenantOwned, Base):
    """The outcome of one verification. Kept as history; `Connection.proof` is the latest."""

    __tablename__ = "proofs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "connection_id"], ["connections.tenant_id", "connections.id"], ondelete="CASCADE"
        ),
        Index("ix_proofs_connection_id", "connection_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    connection_id: Mapped[UUID]
    verdict: Mapped[Verdict] = mapped_column(state_column(Verdict, "verdict"))
    checks: Mapped[list[Any]]  # [{"name", "outcome", "detail"}], in the order in which they were made
    checked_at: Mapped[datetime]


NEVER_TRIED = text("proof_id IS NULL")  # a claim takes these first, so that they need an index of their own


class Connection(TenantOwned, Suspendable, Base):
    """A tenant's link to one IAM role.

    ::

        pending ──proof──► verified ──role gone or refuses us──► broken ──proof──► verified
           │                  │  └──role accepts strangers──► insecure ──proof──► verified
           └──accepts strangers──► insecure
        any ──suspend──► suspended ──resume──► pending          any ──delete──► deleted (the tombstone)

    The role and the External ID never change; another role is another connection with a proof of its own.
    `version` counts what a proof or an issuance relies on: a verdict counts only for the version that it tested.
    """

    __tablename__ = "connections"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),  # what the composite foreign key of proofs points at
        UniqueConstraint("tenant_id", "role_arn"),
        ForeignKeyConstraint(["tenant_id", "external_id_id"], ["external_ids.tenant_id", "external_ids.id"]),
        # Only a proof makes a connection verified, and a proof pins the role's unique id.
        CheckConstraint(
            "status <> 'verified' OR (role_unique_id IS NOT NULL AND verified_at IS NOT NULL)",
            name="verified_is_proven",
        ),
        Index("ix_connections_account_id", "account_id", "id"),
        Index("ix_connections_status", "status", "id"),
        # One range of it is one standing, newest last (connections.list_by_standing), and one status is counted by it.
        Index("ix_connections_standing", "tenant_id", "status", "refuses", "id"),
        Index("ix_connections_due_at", "due_at"),
        Index("ix_connections_due_first", "due_at", sqlite_where=NEVER_TRIED, postgresql_where=NEVER_TRIED),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    external_id_id: Mapped[UUID]
    role_arn: Mapped[str] = mapped_column(String(2048))
    account_id: Mapped[str] = mapped_column(String(12))
    permission_set: Mapped[str] = mapped_column(String(64))
    status: Mapped[ConnectionStatus] = mapped_column(
        state_column(ConnectionStatus, "status"), default=ConnectionStatus.PENDING
    )
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    role_unique_id: Mapped[str | None] = mapped_column(String(128))  # AROA…: a recreated role has another
    proof_id: Mapped[UUID | None]  # the latest proof; no foreign key, as proofs point back here
    verified_at: Mapped[datetime | None]
    # When the next proof is due (None: not scheduled), and since when the connection is on this schedule: searched for
    # since then, or proven since then. See app/schedule.py.
    due_at: Mapped[datetime | None] = mapped_column(default=now)
    due_since: Mapped[datetime | None]
    # Given by its account alone, so that it is we who look for a role there; such searches are few for each tenant.
    sought: Mapped[bool] = mapped_column(default=False, server_default=false())
    awaiting_approval: Mapped[bool] = mapped_column(default=False, server_default=false())  # by the vendor
    stack: Mapped[states.StackState | None] = mapped_column(state_column(states.StackState, "stack"))
    # Pending, and the latest proof was refused: what a customer can do something about. False for any other status.
    refuses: Mapped[bool] = mapped_column(default=False, server_default=false())
    refused_at: Mapped[datetime | None]  # when a worker's report that AWS refused it last took effect
    created_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]

    tenant: Mapped[Tenant] = relationship(lazy="joined", innerjoin=True, viewonly=True)
    external_id_row: Mapped[ExternalIdRow] = relationship(lazy="joined", innerjoin=True, viewonly=True)
    proof: Mapped[Proof | None] = relationship(
        primaryjoin=lambda: foreign(Connection.proof_id) == Proof.id, lazy="joined", viewonly=True
    )

    @property
    def external_id(self) -> str:
        return self.external_id_row.value

    @property
    def why(self) -> str | None:
        """Why nothing is issued for it, in words; None where credentials are issued."""
        return why_not(self.tenant.status, self.status, awaiting_approval=self.awaiting_approval)

    @property
    def issues(self) -> bool:
        return self.why is None

    @property
    def grant(self) -> Grant:
        """The only place where a grant is made: from one row, whose two halves the database holds together."""
        return Grant(
            role_arn=RoleArn.parse(self.role_arn), external_id=ExternalId(self.external_id_row.value)
        )

    def ensure_not_suspended(self) -> None:
        if self.status is ConnectionStatus.SUSPENDED:
            raise SuspendedError("This connection is suspended; resume it first.")

    def suspend(self, suspension: Suspension) -> None:
        if self.status is ConnectionStatus.SUSPENDED:
            raise ConflictError("This connection is suspended already.")
        self._become(ConnectionStatus.SUSPENDED)
        self.note_suspension(suspension)
        self.due_at = None

    def resume(self) -> None:
        if self.status is not ConnectionStatus.SUSPENDED:
            raise ConflictError("This connection is not suspended.")
        self._become(ConnectionStatus.PENDING)
        self.note_suspension(None)
        self.seek(now())

    @property
    def only_sought(self) -> bool:
        """Whether nothing speaks for the role but the account that was given: no proof, and no stack's message."""
        never_proven = self.status is ConnectionStatus.PENDING and self.verified_at is None
        return self.sought and never_proven and self.stack is None

    def seek(self, at: datetime) -> None:
        """Somebody says that the role is there, or changed, or gone: prove it at `at`, and its schedule begins anew.

        Also a proven one's, whose stack is being deleted: its role is there for some seconds more.
        """
        self.due_at = self.due_since = at

    def heeds_report(self, at: datetime) -> bool:
        """Whether a worker's report that AWS refused it takes effect: once a minute, and not while suspended."""
        lately = self.refused_at is not None and self.refused_at > at - _REPORTS_APART
        return self.status is not ConnectionStatus.SUSPENDED and not lately

    def report_refused(self, at: datetime) -> None:
        """Prove it again, and hand out no session that was made before: those are of the version that ends here."""
        self.refused_at = at
        self.version += 1
        self.seek(at)

    def delete(self, at: datetime) -> None:
        self._become(ConnectionStatus.DELETED)
        self.deleted_at = at
        self.due_at = None

    def role_was_recreated(self) -> None:
        """A session showed another role id than the proven one: what was proven is gone (back to pending)."""
        self._become(ConnectionStatus.PENDING)
        self.role_unique_id = None
        self.seek(now())

    def take(self, proof: Proof, role_unique_id: str | None) -> None:
        """Apply the verdict of a proof of this very version."""
        self.proof_id = proof.id
        before = self.status, self.role_unique_id
        match proof.verdict:
            case Verdict.PROVEN if self.awaiting_approval:
                self._become(ConnectionStatus.PENDING)
                self.role_unique_id = role_unique_id
            case Verdict.PROVEN:
                if self.role_unique_id != role_unique_id or self.status is not ConnectionStatus.VERIFIED:
                    self._become(ConnectionStatus.VERIFIED)
                self.role_unique_id = role_unique_id
                self.verified_at = proof.checked_at
            case Verdict.INSECURE:
                self._become(ConnectionStatus.INSECURE)
            case Verdict.UNASSUMABLE if self.status is not ConnectionStatus.PENDING:
                self._become(ConnectionStatus.BROKEN)
            case _:  # a pending role that can't be assumed yet stays pending; inconclusive changes nothing
                pass
        self.refuses = proof.verdict is Verdict.UNASSUMABLE and self.status is ConnectionStatus.PENDING
        self.refuses = (
            self.refuses and not self.only_sought
        )  # there is nothing to mend before there is a stack
        if (self.status, self.role_unique_id) != before or self.due_since is None:
            self.due_since = proof.checked_at
        self.due_at = self._next_due(proof, self.due_since)
        if self.due_at is None and self.status is ConnectionStatus.VERIFIED:
            self.stack = None  # proven to the end: whatever became of the stack, the role is there

    def approve(self, at: datetime) -> None:
        """The vendor's word. Verified at once if its latest proof is proven and fresh; otherwise a proof is due.

        Raises ConflictError when it does not await approval.
        """
        if not self.awaiting_approval:
            raise ConflictError("This connection does not await approval.")
        self.awaiting_approval = False
        proven = self.proof is not None and self.proof.verdict is Verdict.PROVEN
        if self.status is ConnectionStatus.SUSPENDED:
            return
        if self.proof is not None and proven and self.proof.checked_at > at - _FRESH:
            self._become(ConnectionStatus.VERIFIED)
            self.verified_at = self.due_since = self.proof.checked_at
            self.due_at = schedule.next_settling(self.verified_at, at)
        else:
            self.seek(at)

    def _next_due(self, proof: Proof, since: datetime) -> datetime | None:
        if self.status is not ConnectionStatus.VERIFIED:
            return schedule.next_search(since, proof.checked_at)
        if proof.verdict is Verdict.INCONCLUSIVE:
            return proof.checked_at + schedule.UNCLEAR
        return schedule.next_settling(since, proof.checked_at)

    def _become(self, status: ConnectionStatus) -> None:
        if status is not self.status or status is ConnectionStatus.VERIFIED:
            self.version += 1
        self.status = status
        self.refuses = False


class Registration(TenantOwned, Base):
    """A stack's message that was acted upon, so that it is acted upon once, however often it comes.

    The tenant is part of the key: another tenant's message must not be able to make this one's a repetition.
    """

    __tablename__ = "registrations"
    __table_args__ = (UniqueConstraint("tenant_id", "stack_id", "request_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    stack_id: Mapped[str] = mapped_column(String(512))
    request_id: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime] = mapped_column(default=now)


class ApiKey(Base):
    """A caller's key. Only the SHA-256 of its text is kept: 256 random bits need no slow hash and no salt."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    lookup: Mapped[str] = mapped_column(
        String(16), unique=True
    )  # the 16 hex digits in the key's text: not secret
    digest: Mapped[bytes]
    name: Mapped[str] = mapped_column(String(200))
    scope_bits: Mapped[int]  # see access.Scope: a subset test is then one comparison, in SQL too
    tenant_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("tenants.id"), index=True
    )  # set: confined to it
    permission_sets: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))  # names; None: any
    made_by: Mapped[UUID | None] = mapped_column(index=True)  # the key; None for the operator's, and old ones
    replaced_by: Mapped[UUID | None] = mapped_column(index=True)  # the key that inherited what this one made
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class OnboardingLink(TenantOwned, Base):
    """A URL that shows one tenant's onboarding page to whoever has it. Only the SHA-256 of its token is kept."""

    __tablename__ = "onboarding_links"
    __table_args__ = (Index("ix_onboarding_links_tenant", "tenant_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    digest: Mapped[bytes] = mapped_column(unique=True)
    permission_set: Mapped[str] = mapped_column(String(64))
    region: Mapped[str] = mapped_column(String(32))  # the one that the page begins with
    made_by: Mapped[UUID | None] = mapped_column(index=True)  # the key
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
