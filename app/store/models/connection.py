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
_LATE = timedelta(seconds=30)  # after the end of an access: clocks differ
_FRESH = timedelta(days=1)  # of a proof that an approval may rest on


class Proof(Identified, TenantOwned, Base):
    """What a proof found, and how often routine proofs found the same since. `Connection.proof`
    is the latest.
    """

    __tablename__ = "proofs"
    __table_args__ = (
        same_tenant("connection_id", "connections", ondelete="CASCADE"),
        Index("ix_proofs_connection_id", "connection_id"),
    )

    connection_id: Mapped[UUID]
    verdict: Mapped[Verdict] = mapped_column(state_column(Verdict, "verdict"))
    checks: Mapped[
        list[Any]
    ]  # [{"name", "outcome", "detail"}], in the order in which they were made
    warnings: Mapped[list[Any]] = mapped_column(
        default=list, server_default=text("'[]'")
    )  # [{"name", "detail"}]
    trigger: Mapped[Trigger] = mapped_column(state_column(Trigger, "trigger"))  # of the first
    first_at: Mapped[datetime]
    checked_at: Mapped[datetime]  # when the last of them was made
    count: Mapped[int] = mapped_column(default=1, server_default=text("1"))

    def says(self, verdict: Verdict, checks: list[Any], warnings: list[Any]) -> bool:
        return (self.verdict, self.checks, self.warnings) == (verdict, checks, warnings)


# A claim takes each of these by an index of its own.
NEVER_TRIED = text("proof_id IS NULL")
_MOVING = text("wanted_permission_set IS NOT NULL")
_ROUTINE = "due_for = 'scheduled' AND status <> 'pending'"
_URGENT = "due_for <> 'scheduled' OR status = 'pending'"


class Connection(Identified, TenantOwned, Suspendable, RoleSets, Base):
    """A tenant's link to one IAM role. ConnectionStatus shows its states, and what leads from one
    to the next.

    The role never changes: another role is another connection with a proof of its own. The External
    ID changes only by a proof (app/rotation/candidates.py). `version` moves with everything that a
    proof or an issuance relies on: a verdict applies only to the version that it tested.
    """

    __tablename__ = "connections"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),  # what the composite foreign key of proofs points at
        UniqueConstraint("tenant_id", "role_arn"),
        same_tenant("external_id_id", "external_ids"),
        # Only a proof makes a connection verified, and a proof pins the role's unique id.
        CheckConstraint(
            "status <> 'verified' OR (role_unique_id IS NOT NULL AND verified_at IS NOT NULL)",
            name="verified_is_proven",
        ),
        Index("ix_connections_account_id", "account_id", "id"),
        Index("ix_connections_status", "status", "id"),
        # One range of it is one urgency, newest last (app/connections/listing.py), and one status
        # is counted by it.
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
    role_unique_id: Mapped[str | None] = mapped_column(
        String(128)
    )  # AROA…: a recreated role has another
    proof_id: Mapped[UUID | None]  # the latest proof; no foreign key, as proofs point back here
    verified_at: Mapped[datetime | None]
    # When the next proof is due (None: never), and when its schedule began
    # (app/store/models/proof_schedule.py).
    due_at: Mapped[datetime | None] = mapped_column(default=now)
    due_since: Mapped[datetime | None]
    due_for: Mapped[Trigger] = mapped_column(
        state_column(Trigger, "due_for"), default=Trigger.CREATED
    )
    # Only the account was given, so Deputy looks for the kit's role there. A tenant may have a few
    # such searches.
    found_by_account: Mapped[bool] = mapped_column("sought", default=False, server_default=false())
    stack: Mapped[states.StackState | None] = mapped_column(
        state_column(states.StackState, "stack")
    )
    # The stack that last said that it has the role. Deputy does not know how other roles were made.
    stack_id: Mapped[str | None] = mapped_column(String(512))
    # Pending, and the role refused the latest proof: the customer can repair it. False for any
    # other status.
    refuses: Mapped[bool] = mapped_column(default=False, server_default=false())
    # The latest attempt to prove it; and since when each attempt ended in a refusal of its own
    # External ID.
    tried_at: Mapped[datetime | None] = mapped_column(index=True)
    refusing_since: Mapped[datetime | None]
    access_until: Mapped[
        datetime | None
    ]  # when its trust policy ends the access, as read last, or as its stack said
    refused_at: Mapped[
        datetime | None
    ]  # when a worker's report that AWS refused it last took effect
    created_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]
    deleted_by_bound: Mapped[
        bool | None
    ]  # by a key that is bound to the tenant; otherwise the vendor alone revives it

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
        """Why nothing is issued for it, in words; None where credentials are issued."""
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
        """What its role does, in the customer's words: "now", if it was proven before."""
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
        """From one row, whose two halves the database holds together."""
        return self.grant_with(self.external_id_row)

    def grant_with(self, external_id: ExternalIdRow) -> Grant:
        """The only place where a grant is made. With another External ID than its own it serves a
        proof during a rotation.

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
        """Whether the account that was given is all that is known of the role: no proof, and no
        stack's message.
        """
        never_proven = self.status is ConnectionStatus.PENDING and self.verified_at is None
        return self.found_by_account and never_proven and self.stack is None

    def make_due(self, at: datetime, trigger: Trigger) -> None:
        """Prove it at `at`, and begin its schedule again: something says that the role is there,
        changed or gone.

        The deletion of its stack makes a proven role due as well: the role stays for some seconds,
        and a later proof finds it gone. A suspended connection becomes due when it is resumed.
        """
        if self.status is ConnectionStatus.SUSPENDED:
            return
        self.due_at = self.due_since = at
        self.due_for = trigger

    def report_takes_effect(self, at: datetime) -> bool:
        """Whether a worker's report that AWS refused it takes effect: once a minute, and not
        while suspended.
        """
        lately = self.refused_at is not None and self.refused_at > at - _REPORTS_APART
        return self.status is not ConnectionStatus.SUSPENDED and not lately

    def report_refused(self, at: datetime) -> None:
        """Make it due, and drop the sessions that are cached for the version that ends here."""
        self.refused_at = at
        self.version += 1
        self.make_due(at, Trigger.ISSUING)

    def delete(self, at: datetime, *, bound: bool) -> None:
        self._become(ConnectionStatus.DELETED)
        self.deleted_at, self.deleted_by_bound = at, bound
        self.due_at = None

    def role_was_recreated(self) -> None:
        """Back to pending: a session showed another role id than the proven one."""
        self._become(ConnectionStatus.PENDING)
        self.role_unique_id = None
        self.make_due(now(), Trigger.ISSUING)

    def pair_with(self, external_id_id: UUID) -> None:
        """A proof showed that the role accepts this External ID of the tenant; the sessions of
        the old pair are dropped.
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
        """Whether a refusal is what the customer set for this time."""
        return self.access_until is not None and self.access_until <= at

    def refusal_would_break_it(self) -> bool:
        """Whether a refusal of its own External ID would change its status, and nobody expects
        it.
        """
        return self.status in {
            ConnectionStatus.VERIFIED,
            ConnectionStatus.INSECURE,
        } and not self.has_ended(now())

    def note_attempt(self, at: datetime, *, refused: bool) -> None:
        """`refused`: the role refused its own External ID."""
        self.tried_at = at
        self.refusing_since = (
            (self.refusing_since or at) if refused and not self.has_ended(at) else None
        )

    def apply_verdict(
        self, proof: Proof, role_unique_id: str | None, interval: schedule.Interval
    ) -> None:
        """Store what a proof of this very version found, and when the next is due. `interval`:
        of routine proofs.
        """
        self.proof_id = proof.id
        before = self.status, self.role_unique_id
        ended = self.has_ended(proof.checked_at)
        after = states.after_proof(
            self.status, proof.verdict, ended=ended, approved=not self.awaiting_approval
        )
        if proof.verdict is Verdict.PROVEN:
            self.role_unique_id = role_unique_id
            self.access_until = (
                None if ended else self.access_until
            )  # taken away, in a role that can't read itself
            self.verified_at = self.verified_at if self.awaiting_approval else proof.checked_at
        changed = (after, self.role_unique_id) != before
        if changed:
            self._become(after)
        if self.status is ConnectionStatus.BROKEN:
            self.stack_id = None  # its stack may be deleted, and the role come back in another way
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
        """The vendor approves one set that waits; another one goes on waiting. Raises as
        `set_to_approve` does.

        With its own set approved, it is verified at once if its latest proof passed, is fresh, and
        was made since the connection was last made due (a resume, a stack's message); otherwise a
        proof is due.
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
        # No sum of a date that may be the last there is.
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
        """Until when its latest proof allows issuing. `max_age`: PROOF_MAX_AGE."""
        if self.verified_at is None or self.status is not ConnectionStatus.VERIFIED:
            return None
        return self.verified_at + timedelta(seconds=max_age)

    def _become(self, status: ConnectionStatus) -> None:
        if status is not self.status or status is ConnectionStatus.VERIFIED:
            self.version += 1
        self.status = status
        self.refuses = False


def live_of(tenant_id: UUID) -> ColumnElement[bool]:
    """The tenant's connections, without those that were deleted."""
    return (Connection.tenant_id == tenant_id) & (Connection.status != ConnectionStatus.DELETED)


# The conditions of the two indexes above, with the table's name.
_SCHEDULED, _PENDING = literal_column("'scheduled'", String), literal_column("'pending'", String)
IN_ROUTINE = (Connection.due_for == _SCHEDULED) & (Connection.status != _PENDING)
URGENT = (Connection.due_for != _SCHEDULED) | (Connection.status == _PENDING)
