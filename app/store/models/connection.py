"""A tenant's link to one IAM role: its states, and the proofs that decide them."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Index,
    String,
    UniqueConstraint,
    false,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, foreign, mapped_column, relationship
from sqlalchemy.sql import ColumnElement

from app.clock import now
from app.errors import ConflictError, SuspendedError
from app.ids import ExternalId, Grant, RoleArn
from app.store.models import proof_schedule as schedule, states
from app.store.models.base import (
    Base,
    Identified,
    Suspendable,
    Suspension,
    same_tenant,
    state_column,
)
from app.store.models.role_sets import RoleSets
from app.store.models.states import ConnectionStatus, Trigger, Verdict, why_not
from app.store.models.tenant import ExternalIdRow, Tenant, TenantOwned

_REPORTS_APART = timedelta(minutes=1)
_LATE = timedelta(seconds=30)  # after the end of an access, because clocks differ
_FRESH = timedelta(days=1)  # maximum age of a proof that an approval may rest on


class Proof(Identified, TenantOwned, Base):
    """A proof's result, and how many later routine proofs had the same.

    `Connection.proof` is the latest.
    """

    __tablename__ = "proofs"
    __table_args__ = (
        same_tenant("connection_id", "connections", ondelete="CASCADE"),
        Index("ix_proofs_connection_id", "connection_id"),
    )

    connection_id: Mapped[UUID]
    verdict: Mapped[Verdict] = mapped_column(state_column(Verdict, "verdict"))
    checks: Mapped[list[Any]]  # [{"name", "outcome", "detail"}], in the order of the checks
    # Each with its name and detail
    warnings: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'"))
    trigger: Mapped[Trigger] = mapped_column(state_column(Trigger, "trigger"))  # the first proof's
    first_at: Mapped[datetime]
    checked_at: Mapped[datetime]  # time of the last proof
    count: Mapped[int] = mapped_column(default=1, server_default=text("1"))

    def says(self, verdict: Verdict, checks: list[Any], warnings: list[Any]) -> bool:
        return (self.verdict, self.checks, self.warnings) == (verdict, checks, warnings)


# Conditions of indexes, one for each kind of claim.
NEVER_TRIED = text("proof_id IS NULL")
_MOVING = text("wanted_permission_set IS NOT NULL")
_ROUTINE = "due_for = 'scheduled' AND status <> 'pending'"
_URGENT = "due_for <> 'scheduled' OR status = 'pending'"


class Connection(Identified, TenantOwned, Suspendable, RoleSets, Base):
    """A tenant's link to one IAM role. ConnectionStatus shows its states and their transitions.

    The role never changes: another role is another connection with a proof of its own. Only a proof
    changes the External ID (app/rotation/candidates.py). `version` increases with every change that
    a proof or an issuance relies on. A verdict applies only to the version that it tested.
    """

    __tablename__ = "connections"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),  # target of the composite foreign key of proofs
        UniqueConstraint("tenant_id", "role_arn"),
        same_tenant("external_id_id", "external_ids"),
        # Only a proof makes a connection verified, and a proof pins the role's unique id.
        CheckConstraint(
            "status <> 'verified' OR (role_unique_id IS NOT NULL AND verified_at IS NOT NULL)",
            name="verified_is_proven",
        ),
        Index("ix_connections_account_id", "account_id", "id"),
        Index("ix_connections_status", "status", "id"),
        # Each urgency is one range, in order of creation (app/connections/listing.py). The count of
        # each status uses the index too.
        Index("ix_connections_standing", "tenant_id", "status", "refuses", "id"),
        Index(
            "ix_connections_due_urgent",
            "due_at",
            sqlite_where=text(_URGENT),
            postgresql_where=text(_URGENT),
        ),
        Index(
            "ix_connections_due_routine",
            "due_at",
            sqlite_where=text(_ROUTINE),
            postgresql_where=text(_ROUTINE),
        ),
        Index(
            "ix_connections_moving",
            "tenant_id",
            "id",
            sqlite_where=_MOVING,
            postgresql_where=_MOVING,
        ),
        Index(
            "ix_connections_due_first",
            "due_at",
            sqlite_where=NEVER_TRIED,
            postgresql_where=NEVER_TRIED,
        ),
    )

    external_id_id: Mapped[UUID]
    role_arn: Mapped[str] = mapped_column(String(2048))
    account_id: Mapped[str] = mapped_column(String(12))
    status: Mapped[ConnectionStatus] = mapped_column(
        state_column(ConnectionStatus, "status"), default=ConnectionStatus.PENDING
    )
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    # AROA…: a recreated role has another one
    role_unique_id: Mapped[str | None] = mapped_column(String(128))
    # The latest proof; no foreign key, as proofs refer to connections
    proof_id: Mapped[UUID | None]
    verified_at: Mapped[datetime | None]
    # The time of the next proof (None: never), and the start of its schedule
    # (app/store/models/proof_schedule.py).
    due_at: Mapped[datetime | None] = mapped_column(default=now)
    due_since: Mapped[datetime | None]
    due_for: Mapped[Trigger] = mapped_column(
        state_column(Trigger, "due_for"), default=Trigger.CREATED
    )
    # True when only the account was given. Deputy then looks for the kit's role there. The number
    # of such searches per tenant is limited.
    found_by_account: Mapped[bool] = mapped_column("sought", default=False, server_default=false())
    stack: Mapped[states.StackState | None] = mapped_column(
        state_column(states.StackState, "stack")
    )
    # The stack that last registered the role; None if that is unknown.
    stack_id: Mapped[str | None] = mapped_column(String(512))
    # True for a pending connection whose role refused the latest proof. The customer can repair it.
    refuses: Mapped[bool] = mapped_column(default=False, server_default=false())
    # The latest attempt at a proof, and the first of the consecutive refusals of its own External
    # ID.
    tried_at: Mapped[datetime | None] = mapped_column(index=True)
    refusing_since: Mapped[datetime | None]
    # End of access, from the trust policy at its last reading, or from its stack's message
    access_until: Mapped[datetime | None]
    # Latest effective report of a client that AWS refused a session
    refused_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]
    # Deleted by a key that is bound to the tenant; otherwise only the vendor revives it
    deleted_by_bound: Mapped[bool | None]

    tenant: Mapped[Tenant] = relationship(lazy="joined", innerjoin=True, viewonly=True)
    external_id_row: Mapped[ExternalIdRow] = relationship(
        lazy="joined", innerjoin=True, viewonly=True
    )
    proof: Mapped[Proof | None] = relationship(
        primaryjoin=lambda: foreign(Connection.proof_id) == Proof.id, lazy="joined", viewonly=True
    )

    @property
    def external_id(self) -> str:
        return self.external_id_row.value

    @property
    def why(self) -> str | None:
        """The reason why it does not issue, in words; None if it issues."""
        withdrawn = self.external_id_row.is_withdrawn
        reason = why_not(
            self.tenant.status,
            self.status,
            awaiting_approval=self.awaiting_approval,
            withdrawn=withdrawn,
        )
        if reason is None or reason != states.SEE_VERIFICATION.get(self.status):
            return reason
        return self._what_failed() or reason

    def _what_failed(self) -> str | None:
        """Return what its role does, in the customer's words.

        The words include "now" if the connection was proven before.
        """
        if self.ended_at:
            return f"Its access ended on {self.ended_at:%-d %B %Y, %H:%M} UTC, as the customer set."
        checks = self.proof.checks if self.proof else []
        failed = {check["name"] for check in checks if check["outcome"] == "failed"}
        words = next((words for names, words in states.FAILED if names <= failed), None)
        return words and words.format(now=" now" if self.verified_at else "")

    @property
    def issues(self) -> bool:
        return self.why is None

    @property
    def grant(self) -> Grant:
        """The pair of its role and its External ID.

        Both come from one row, and a foreign key ties them to the same tenant.
        """
        return self.grant_with(self.external_id_row)

    def grant_with(self, external_id: ExternalIdRow) -> Grant:
        """Return the grant of its role with this External ID. Grants are made only here.

        During a rotation a proof uses it with an External ID that is not the connection's own.
        Raises ValueError for another tenant's External ID.
        """
        if external_id.tenant_id != self.tenant_id:
            raise ValueError("The External ID is another tenant's.")
        return Grant(
            role_arn=RoleArn.parse(self.role_arn), external_id=ExternalId(external_id.value)
        )

    def ensure_not_suspended(self) -> None:
        if self.status is ConnectionStatus.SUSPENDED:
            raise SuspendedError("This connection is suspended; resume it first.")

    def suspend(self, suspension: Suspension) -> None:
        self.ensure_may_suspend(suspension, suspended=self.status is ConnectionStatus.SUSPENDED)
        self._become(ConnectionStatus.SUSPENDED)
        self.note_suspension(suspension)
        self.due_at = None

    def resume(self) -> None:
        if self.status is not ConnectionStatus.SUSPENDED:
            raise ConflictError("This connection is not suspended.")
        self._become(ConnectionStatus.PENDING)
        self.note_suspension(None)
        self.make_due(now(), Trigger.RESUMED)

    @property
    def is_only_an_account(self) -> bool:
        """Return whether only the role's account is known.

        Then there was no proof and no stack's message.
        """
        never_proven = self.status is ConnectionStatus.PENDING and self.verified_at is None
        return self.found_by_account and never_proven and self.stack is None

    def make_due(self, at: datetime, trigger: Trigger) -> None:
        """Schedule a proof at `at`, and restart the schedule.

        Call it when a message or a request suggests that the role exists, changed or was deleted.
        The deletion of its stack makes a proven role due as well: the role exists for some more
        seconds, and a later proof detects its deletion. A suspended connection becomes due when it
        is resumed.
        """
        if self.status is ConnectionStatus.SUSPENDED:
            return
        self.due_at = self.due_since = at
        self.due_for = trigger

    def report_takes_effect(self, at: datetime) -> bool:
        """Return whether a client's report of a refusal by AWS takes effect.

        A report takes effect once a minute, and never while the connection is suspended.
        """
        lately = self.refused_at is not None and self.refused_at > at - _REPORTS_APART
        return self.status is not ConnectionStatus.SUSPENDED and not lately

    def report_refused(self, at: datetime) -> None:
        """Make it due, and invalidate the sessions that are cached for the current version."""
        self.refused_at = at
        self.version += 1
        self.make_due(at, Trigger.ISSUING)

    def delete(self, at: datetime, *, bound: bool) -> None:
        self._become(ConnectionStatus.DELETED)
        self.deleted_at, self.deleted_by_bound = at, bound
        self.due_at = None

    def role_was_recreated(self) -> None:
        """Return it to pending after a session showed another role id than the proven one."""
        self._become(ConnectionStatus.PENDING)
        self.role_unique_id = None
        self.make_due(now(), Trigger.ISSUING)

    def pair_with(self, external_id_id: UUID) -> None:
        """Pair the role with this External ID of the tenant, after a proof that it accepts it.

        Cached sessions of the old pair become invalid.
        """
        self.external_id_id = external_id_id
        self.version += 1

    @property
    def ended_at(self) -> datetime | None:
        return (
            self.access_until
            if self.status is ConnectionStatus.ENDED and self.has_ended(now())
            else None
        )

    def has_ended(self, at: datetime) -> bool:
        """Return whether the customer's end of access has passed. A refusal is then expected."""
        return self.access_until is not None and self.access_until <= at

    def refusal_would_break_it(self) -> bool:
        """Return whether a refusal of its own External ID would be unexpected.

        Then it changes the status. A pending role's refusal changes none, and a refusal after the
        end of access is expected.
        """
        return self.status in {
            ConnectionStatus.VERIFIED,
            ConnectionStatus.INSECURE,
        } and not self.has_ended(now())

    def note_attempt(self, at: datetime, *, refused: bool) -> None:
        """Record an attempt at a proof. `refused`: the role refused its own External ID."""
        self.tried_at = at
        self.refusing_since = (
            (self.refusing_since or at) if refused and not self.has_ended(at) else None
        )

    def apply_verdict(
        self, proof: Proof, role_unique_id: str | None, interval: schedule.Interval
    ) -> None:
        """Store the result of a proof of this version, and schedule the next proof.

        `interval`: between two routine proofs.
        """
        self.proof_id = proof.id
        before = self.status, self.role_unique_id
        ended = self.has_ended(proof.checked_at)
        after = states.after_proof(
            self.status, proof.verdict, ended=ended, approved=not self.awaiting_approval
        )
        if proof.verdict is Verdict.PROVEN:
            self.role_unique_id = role_unique_id
            # A role that is proven after its end of access has none any more
            self.access_until = None if ended else self.access_until
            self.verified_at = self.verified_at if self.awaiting_approval else proof.checked_at
        changed = (after, self.role_unique_id) != before
        if changed:
            self._become(after)
        if self.status is ConnectionStatus.BROKEN:
            self.stack_id = None  # the stack may be deleted and the role recreated in another way
        # Before there is a stack, the customer has nothing to repair.
        refused = proof.verdict is Verdict.UNASSUMABLE and self.status is ConnectionStatus.PENDING
        self.refuses = refused and not self.is_only_an_account
        if changed or self.due_since is None:
            self.due_since = proof.checked_at
        self.due_at, self.due_for = (
            self._next_due(proof, self.due_since, interval),
            Trigger.SCHEDULED,
        )
        if self.status is ConnectionStatus.VERIFIED and not schedule.next_settling(
            self.due_since, proof.checked_at
        ):
            self.stack = None  # the role outlived its stack

    def approve(self, at: datetime, permission_set: str | None = None) -> None:
        """Approve one permission set for the vendor. Another set that waits goes on waiting.

        After the approval of its own set, the connection is verified at once if its latest proof
        passed and is fresh. That proof must be later than the event that last made the connection
        due (a resume, a stack's message). Otherwise a proof becomes due. Raises what
        `set_to_approve` raises.
        """
        self.approved_set = self.set_to_approve(permission_set)
        if self.approved_set == self.wanted_permission_set:
            self.wanted_approved = True
            self._move()
            return
        self.awaiting_approval = False
        if self.status is ConnectionStatus.SUSPENDED:
            return
        oldest, proof = max(at - _FRESH, self.due_since or at), self.proof
        passed = (
            proof is not None
            and proof.verdict is Verdict.PROVEN
            and not self.external_id_row.is_withdrawn
        )
        if proof is not None and passed and proof.checked_at >= oldest:
            self._become(ConnectionStatus.VERIFIED)
            self.verified_at = self.due_since = proof.checked_at
            self.due_at, self.due_for = (
                schedule.next_settling(self.verified_at, at) or at,
                Trigger.SCHEDULED,
            )
        else:
            self.make_due(at, Trigger.REQUESTED)

    def _next_due(
        self, proof: Proof, since: datetime, interval: schedule.Interval
    ) -> datetime | None:
        at = proof.checked_at
        if self.status is ConnectionStatus.PENDING:
            return schedule.next_search(since, at)
        turn = schedule.next_turn(self.id, at, interval.every)
        # Compare by subtraction: the date may be the last possible one, and a sum would overflow.
        if self.access_until and at - _LATE < self.access_until < turn:
            turn = self.access_until + _LATE
        if proof.verdict is Verdict.INCONCLUSIVE:
            sooner: datetime | None = at + interval.pause
        elif self.status is not ConnectionStatus.VERIFIED:
            sooner = schedule.next_soon(since, at)
        else:
            sooner = schedule.next_settling(since, at)
        return min(turn, sooner or turn)

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


def live_of(tenant_id: UUID) -> ColumnElement[bool]:
    """Return the condition for the tenant's connections that are not deleted."""
    return (Connection.tenant_id == tenant_id) & (Connection.status != ConnectionStatus.DELETED)


# The conditions of the two indexes above, as column expressions.
_SCHEDULED, _PENDING = literal_column("'scheduled'", String), literal_column("'pending'", String)
IN_ROUTINE = (Connection.due_for == _SCHEDULED) & (Connection.status != _PENDING)
URGENT = (Connection.due_for != _SCHEDULED) | (Connection.status == _PENDING)
