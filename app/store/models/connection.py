"""The table of connections. A connection is a tenant's link to one IAM role."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Index,
    String,
    UniqueConstraint,
    and_,
    literal_column,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.sql import ColumnElement

from app.clock import now
from app.errors import (
    ConflictError,
    ConnectionNotVerifiedError,
    CustomerSetupError,
    ExternalIdWithdrawnError,
    SuspendedError,
)
from app.ids import ExternalId, Grant, RoleArn
from app.store.models.base import Base, CreatedAt, Flag, TenantOwned, row_in, same_tenant
from app.store.models.connection_status import ConnectionStatus, after_proof, why_not_verified
from app.store.models.external_id import ExternalIdRow, ExternalIdState
from app.store.models.proof import Proof, Trigger, Verdict
from app.store.models.proof_schedule import ProofSchedule
from app.store.models.role import Role
from app.store.models.role_sets import RoleSets
from app.store.models.tenant import Suspendable, Suspension, Tenant, TenantStatus

# Maximum age of a proof with which the vendor's approval verifies a connection at once
_PROOF_AGE_MAX = timedelta(days=1)
_NOT_VERIFIED = (
    "This connection is not verified. Call verify, and read `verification` in the answer."
)


class Connection(TenantOwned, Suspendable, Role, RoleSets, ProofSchedule, Base):
    """A tenant's link to one IAM role. ConnectionStatus shows its states and their transitions.

    A connection's role never changes; another role needs another connection. Only a proof changes
    the connection's External ID (app/rotation/switch.py). `version` increases with every change
    that a proof or an issuance relies on. A proof's verdict applies only to the version that the
    proof tested.
    """

    __tablename__ = "connections"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),  # target of the composite foreign key of proofs
        UniqueConstraint("tenant_id", "role_arn"),
        same_tenant("external_id_id", "external_ids"),
        # Only a proof verifies a connection, and it stores the role's unique id.
        CheckConstraint(
            "status <> 'verified' OR (role_unique_id IS NOT NULL AND verified_at IS NOT NULL)",
            name="verified_is_proven",
        ),
        CheckConstraint("status <> 'verified' OR approval_id IS NULL", name="verified_is_approved"),
    )

    external_id_id: Mapped[UUID]
    status: Mapped[ConnectionStatus] = mapped_column(default=ConnectionStatus.PENDING)
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    # The latest proof. It is no foreign key, because proofs already refer to connections.
    proof_id: Mapped[UUID | None]
    # True for a pending connection whose role refused the latest proof, which the customer can fix
    refuses: Mapped[Flag]
    # The onboarding link through whose page or stack the connection was added. Links are never
    # deleted.
    onboarding_link_id: Mapped[UUID | None]
    created_at: Mapped[CreatedAt]
    deleted_at: Mapped[datetime | None]
    # True if a key that is bound to the tenant deleted it. Otherwise only the vendor may revive it.
    deleted_by_bound: Mapped[bool | None]

    tenant: Mapped[Tenant] = relationship(lazy="joined", innerjoin=True, viewonly=True)
    external_id_row: Mapped[ExternalIdRow] = relationship(
        lazy="joined", innerjoin=True, viewonly=True
    )
    proof: Mapped[Proof | None] = row_in("Connection.proof_id", "Proof", "joined")

    @property
    def external_id(self) -> str:
        return self.external_id_row.value

    @property
    def imported_id(self) -> str | None:
        """The connection's External ID if it was imported; None if Deputy made it."""
        row = self.external_id_row
        return row.value if row.state is ExternalIdState.IMPORTED else None

    @property
    def why(self) -> str | None:
        """A sentence about why no credentials are issued for the connection; None if they are."""
        try:
            self.ensure_issues(self.tenant.status)
        except CustomerSetupError as error:
            if error.detail != _NOT_VERIFIED:
                return error.detail.replace("This", "The", 1)
            return why_not_verified(self.status, self.ended_at, self.proof, self.verified_at)
        return None

    def ensure_issues(self, tenant_status: TenantStatus) -> None:
        """Raise an error unless credentials are issued for the connection.

        Raises SuspendedError, ConnectionNotVerifiedError or ExternalIdWithdrawnError.
        """
        tenant_status.ensure_active()
        self.ensure_not_suspended()
        if self.status is ConnectionStatus.PENDING and self.awaiting_approval:
            raise ConnectionNotVerifiedError(
                "Its account was not declared; the vendor has to approve it."
            )
        if self.status is not ConnectionStatus.VERIFIED:
            raise ConnectionNotVerifiedError(_NOT_VERIFIED)
        if self.external_id_row.is_withdrawn:
            raise ExternalIdWithdrawnError(
                "Its External ID was withdrawn; update its role, so that it accepts the one in the"
                " onboarding kit."
            )

    @property
    def issues(self) -> bool:
        return self.why is None

    @property
    def grant(self) -> Grant:
        """The grant for the connection's role and External ID.

        Both come from one row, and a foreign key ties them to the same tenant.
        """
        return self.grant_with(self.external_id_row)

    def grant_with(self, external_id: ExternalIdRow) -> Grant:
        """Return the grant for the connection's role with this External ID.

        Only this method creates grants.

        During a rotation, proofs pass an External ID that is not the connection's own. Raises
        ValueError for another tenant's External ID.
        """
        if external_id.tenant_id != self.tenant_id:
            raise ValueError("The External ID is another tenant's.")
        return Grant(
            role_arn=RoleArn.parse(self.role_arn),
            external_id=ExternalId(external_id.value),
            tenant_id=self.tenant_id,
        )

    def ensure_not_suspended(self) -> None:
        if self.status is ConnectionStatus.SUSPENDED:
            raise SuspendedError("This connection is suspended; resume it first.")

    def suspend(self, suspension: Suspension) -> None:
        self.begin_suspension(suspension)
        self._become(ConnectionStatus.SUSPENDED)
        self.due_at = None

    def resume(self) -> None:
        if self.status is not ConnectionStatus.SUSPENDED:
            raise ConflictError("This connection is not suspended.")
        self._become(ConnectionStatus.PENDING)
        self.end_suspension()
        self.make_due(now(), Trigger.RESUMED)

    @property
    def is_only_an_account(self) -> bool:
        """Return whether only the role's account is known.

        A proof of the role, or a stack's message about it, ends this state.
        """
        return self.is_search and self.stack is None and self.status is ConnectionStatus.PENDING

    def make_due(self, due_at: datetime, trigger: Trigger) -> None:
        """Restart the schedule of proofs with a proof at `due_at`.

        Call it when a message or a request suggests that the role was created, changed or deleted.
        When the role's stack is being deleted, the role exists for some more seconds. One of the
        next proofs then detects its deletion. A suspended connection stays unscheduled until it is
        resumed.
        """
        if self.status is ConnectionStatus.SUSPENDED:
            return
        self.due_at = self.due_since = due_at
        self.due_for = trigger

    def report_refused(self, reported_at: datetime) -> None:
        """Make a proof due, and invalidate the cached sessions of the current version."""
        self.refused_at = reported_at
        self.version += 1
        self.make_due(reported_at, Trigger.ISSUING)

    def delete(self, deleted_at: datetime, *, bound: bool) -> None:
        self._become(ConnectionStatus.DELETED)
        for column, value in deletion(deleted_at, bound=bound).items():
            setattr(self, column, value)

    def role_was_recreated(self) -> None:
        """Set the connection to pending, because a session showed that the role was recreated."""
        self._become(ConnectionStatus.PENDING)
        self.role_unique_id = None
        self.make_due(now(), Trigger.ISSUING)

    def pair_with(self, external_id_id: UUID) -> None:
        """Set the connection's External ID to this one, after a proof that the role accepts it.

        Sessions that were cached for the old External ID become invalid.
        """
        self.external_id_id = external_id_id
        self.version += 1

    @property
    def ended_at(self) -> datetime | None:
        ended = self.status is ConnectionStatus.ENDED and self.has_ended(now())
        return self.access_until if ended else None

    def apply_verdict(self, proof: Proof, role_unique_id: str | None) -> bool:
        """Store the result of a proof of this version.

        Return whether the status or the role has changed, which restarts the schedule of proofs.
        """
        self.proof_id = proof.id
        before = self.status, self.role_unique_id
        ended, approved = self.has_ended(proof.checked_at), not self.awaiting_approval
        after = after_proof(self.status, proof.verdict, ended=ended, approved=approved)
        if proof.verdict is Verdict.PROVEN:
            self.role_unique_id = role_unique_id
            if approved:
                self.verified_at = proof.checked_at
        changed = (after, self.role_unique_id) != before
        if changed:
            self._become(after)
        if self.status is ConnectionStatus.BROKEN:
            self.stack_id = None  # the stack may be gone, and the role be recreated without it
        # While only the account is known, there is no role that the customer could repair.
        refused = proof.verdict is Verdict.UNASSUMABLE and self.status is ConnectionStatus.PENDING
        self.refuses = refused and not self.is_only_an_account
        return changed

    def approve(self, approved_at: datetime) -> bool:
        """Apply the vendor's approval of the connection's own permission set.

        Return whether the latest proof verifies the connection at once, because it passed and is
        recent. Otherwise a new proof becomes due. A recent proof is at most a day old, and was not
        made before the last resume or stack's message (`due_since`).
        """
        self.set_approval(None)
        proof, oldest = self.proof, max(approved_at - _PROOF_AGE_MAX, self.due_since or approved_at)
        if (
            proof is None
            or not proof.passed_since(oldest)
            or self.external_id_row.is_withdrawn
            or self.status is ConnectionStatus.SUSPENDED
        ):
            self.make_due(approved_at, Trigger.REQUESTED)
            return False
        self._become(ConnectionStatus.VERIFIED)
        self.verified_at = self.due_since = proof.checked_at
        return True

    def proven_until(self, max_age: int) -> datetime | None:
        """Return the time until which its latest proof allows issuing. `max_age`: PROOF_MAX_AGE."""
        if self.verified_at is None or self.status is not ConnectionStatus.VERIFIED:
            return None
        return self.verified_at + timedelta(seconds=max_age)

    def _become(self, status: ConnectionStatus) -> None:
        if status is not self.status or status is ConnectionStatus.VERIFIED:
            self.version += 1
        self.status = status
        self.refuses = False


def deletion(deleted_at: datetime, *, bound: bool) -> dict[str, Any]:
    """Return the columns that a deletion sets, without the version, and their values.

    `bound`: a key that is bound to the tenant deletes the connection.
    """
    return {
        "status": ConnectionStatus.DELETED,
        "refuses": False,
        "deleted_at": deleted_at,
        "deleted_by_bound": bound,
        "due_at": None,
    }


# The statuses are listed so that the database can use an index by status. With "<> 'deleted'" it
# would read the rows of deleted connections too, of which a tenant may have any number.
LIVE = tuple(status for status in ConnectionStatus if status is not ConnectionStatus.DELETED)


def live_of(tenant_id: UUID) -> ColumnElement[bool]:
    """Return the condition for the tenant's connections that are not deleted."""
    return (Connection.tenant_id == tenant_id) & Connection.status.in_(LIVE)


def live_ranges_of(tenant_id: UUID) -> list[ColumnElement[bool]]:
    """Return the same as one condition for each range of an index that is in order of the id."""
    ranges = [(status, False) for status in LIVE] + [(ConnectionStatus.PENDING, True)]
    return [
        and_(
            Connection.tenant_id == tenant_id,
            Connection.status == status,
            Connection.refuses == refuses,
        )
        for status, refuses in ranges
    ]


Index("ix_connections_account_id", Connection.account_id, Connection.id)
Index("ix_connections_status", Connection.status, Connection.id)
# The list by urgency reads one range of this index for each urgency (app/connections/urgency.py).
# Counting a tenant's connections by status uses it too.
Index(
    "ix_connections_standing",
    Connection.tenant_id,
    Connection.status,
    Connection.refuses,
    Connection.id,
)
Index(
    "ix_connections_moving",
    Connection.tenant_id,
    Connection.id,
    postgresql_where=Connection.move_id.is_not(None),
)
Index(
    "ix_connections_of_link",
    Connection.onboarding_link_id,
    Connection.id,
    postgresql_where=Connection.onboarding_link_id.is_not(None),
)
# The proof queue claims first proofs, and two other kinds, each by an index of its own. The values
# are literals, because the database does not use a partial index for a query with parameters.
Index("ix_connections_due_first", Connection.due_at, postgresql_where=Connection.proof_id.is_(None))
_SCHEDULED, _PENDING = literal_column("'scheduled'", String), literal_column("'pending'", String)
IN_ROUTINE = (Connection.due_for == _SCHEDULED) & (Connection.status != _PENDING)
URGENT = (Connection.due_for != _SCHEDULED) | (Connection.status == _PENDING)
Index("ix_connections_due_routine", Connection.due_at, postgresql_where=IN_ROUTINE)
Index("ix_connections_due_urgent", Connection.due_at, postgresql_where=URGENT)
