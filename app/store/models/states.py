"""The states of connections, the proofs that decide them, and when the next proof is due.

The schedule computes a connection's `due_at`. A role that refuses Deputy may be new, or its
administrator may be changing it. Deputy retries soon, then less and less often, and gives up in the
end. A role that passes its first proof gets two more proofs soon, because IAM takes minutes to
propagate a change: it may refuse a stranger at first and accept it later. After that, each interval
has one routine proof. A role that was proven before and fails now is retried soon as well, and then
gets one routine proof per interval.
"""

import enum
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.store.models.base import Base, Identified, same_tenant
from app.store.models.tenant import TenantOwned

_MINUTE = 60  # seconds
_RETRIES = 5, 15, 30, 60  # seconds from the start of the schedule, for a role that refuses
SETTLING = 120, 900  # seconds from the start of the schedule, for a role that is proven
_HOURLY = timedelta(hours=1)
SEARCH_DAYS = 14  # an unproven role is given up after this time
_LATE = timedelta(seconds=30)  # delay of the proof after an end of access, because clocks differ


class ConnectionStatus(enum.StrEnum):
    """The states of a connection.

    `after_proof` computes the transitions after proofs. Requests cause the other transitions.

    ::

        (created) ──► pending
        pending, verified, broken, insecure, ended
          ├──proven──► verified ──the role was recreated──► pending
          ├──proven, but the vendor must approve it──► pending ──approve──► verified
          ├──accepts a call that it should refuse──► insecure
          ├──refuses us, after the end of its access──► ended
          └──refuses us, before that──► broken; but pending stays pending
        any ──suspend──► suspended ──resume──► pending       any ──delete──► deleted (the tombstone)
    """

    PENDING = "pending"
    VERIFIED = "verified"
    BROKEN = "broken"
    ENDED = "ended"  # the end of access in its trust policy has passed
    INSECURE = "insecure"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class Verdict(enum.StrEnum):
    """The verdict of a proof. `inconclusive` does not change a connection's status."""

    PROVEN = "proven"
    INSECURE = "insecure"
    UNASSUMABLE = "unassumable"
    INCONCLUSIVE = "inconclusive"


def after_proof(
    status: ConnectionStatus, verdict: Verdict, *, ended: bool, approved: bool
) -> ConnectionStatus:
    """Return a connection's status after a proof. `suspended` and `deleted` do not change.

    `ended`: the proof was later than the end of access that the customer set. `approved`: the
    connection does not wait for an approval.
    """
    if status in {ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED}:
        return status
    match verdict:
        case Verdict.PROVEN:
            return ConnectionStatus.VERIFIED if approved else ConnectionStatus.PENDING
        case Verdict.INSECURE:
            return ConnectionStatus.INSECURE
        case Verdict.UNASSUMABLE if ended:
            return ConnectionStatus.ENDED
        case Verdict.UNASSUMABLE if status is not ConnectionStatus.PENDING:
            return ConnectionStatus.BROKEN
    return status


class StackState(enum.StrEnum):
    """The state of a role's stack according to the stack's messages.

    The onboarding page shows it. No decision depends on it.
    """

    MADE = "made"
    ROLLED_BACK = "rolled_back"
    DELETED = "deleted"


class Trigger(enum.StrEnum):
    """The reason for a proof."""

    CREATED = "created"
    SCHEDULED = "scheduled"
    REQUESTED = "requested"  # a person asked for it
    REGISTERED = "registered"  # a stack's message
    ROTATION = "rotation"
    ISSUING = "issuing"  # AWS refused a session, or an issuance needed a fresh proof
    RESUMED = "resumed"


# Proofs with these triggers are frequent, and no request waits for them.
ROUTINE = frozenset({Trigger.SCHEDULED, Trigger.ISSUING, Trigger.ROTATION})


SEE_VERIFICATION = {
    ConnectionStatus.PENDING: "Its role is not proven yet; see verification.",
    ConnectionStatus.BROKEN: "Its role can't be assumed any more; see verification.",
    ConnectionStatus.ENDED: "Its access has ended, as the customer set.",
    ConnectionStatus.INSECURE: "Its role lets strangers in; see verification.",
}


# The names of the checks in a proof
OWN = "own_external_id_accepted"
ACCOUNT = "account_matches"
MISSING = "missing_external_id_refused"
FOREIGN = "foreign_external_id_refused"
STRANGER = "stranger_refused"
DEMANDS = "trust_policy_demands_external_id"
ONLY_US = "trust_policy_names_only_us"

# The first entry whose checks have all failed describes the failure. `{now}` is replaced by " now"
# if the connection was proven before, and by nothing otherwise.
_FAILED = (
    ({MISSING, FOREIGN}, "The role{now} accepts any External ID."),
    ({MISSING}, "The role{now} lets us in without an External ID."),
    ({FOREIGN}, "The role{now} accepts an External ID that is not this tenant's."),
    ({STRANGER}, "The role{now} lets in another AWS account than ours."),
    ({DEMANDS}, "The trust policy{now} has a statement that lets us in without the External ID."),
    ({OWN}, "The role{now} refuses this tenant's External ID, or was deleted."),
    ({ACCOUNT}, "The role is{now} in another account than its ARN says."),
)


class Proof(Identified, TenantOwned, Base):
    """The result of a proof. `count`: how many proofs in a row had this result.

    `Connection.proof` is the latest row.
    """

    __tablename__ = "proofs"
    __table_args__ = (
        same_tenant("connection_id", "connections", ondelete="CASCADE"),
        Index("ix_proofs_connection_id", "connection_id"),
    )

    connection_id: Mapped[UUID]
    verdict: Mapped[Verdict]
    checks: Mapped[list[Any]]  # [{"name", "outcome", "detail"}], in the order of the checks
    # A list of objects with "name" and "detail"
    warnings: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'"))
    trigger: Mapped[Trigger]  # that of the first proof
    first_at: Mapped[datetime]
    checked_at: Mapped[datetime]  # time of the last of these proofs
    count: Mapped[int] = mapped_column(default=1, server_default=text("1"))

    def failure(self, *, before: bool) -> str | None:
        """Return a sentence for the customer about what failed; None if no check did.

        `before`: whether an earlier proof passed.
        """
        failed = set()
        for check in self.checks:
            if check["outcome"] == "failed":
                failed.add(check["name"])
        for names, words in _FAILED:
            if names <= failed:
                return words.format(now=" now" if before else "")
        return None


class Interval(NamedTuple):
    """The interval between two routine proofs of a connection.

    It is REPROVE_EVERY, or longer if there are too many connections for the STS budget.
    """

    configured: int  # REPROVE_EVERY, in seconds
    seconds: int  # the interval itself
    connections: int = 0

    @classmethod
    def for_connections(
        cls, configured: int, connections: int, proofs_a_second: float
    ) -> "Interval":
        """Return the interval for this number of connections.

        It grows in steps of a quarter of REPROVE_EVERY. A change of the interval moves the slots of
        all connections, so it must not change with every few connections.
        """
        quarters = max(4, math.ceil(4 * connections / proofs_a_second / configured))
        return cls(configured, math.ceil(configured * quarters / 4), connections)

    @property
    def pause(self) -> timedelta:
        """The backoff after an inconclusive proof, or after a role's first refusal."""
        return timedelta(seconds=min(_MINUTE, self.configured))


def first_after(pauses: tuple[int, ...], since: datetime, tried_at: datetime) -> datetime | None:
    """Return the first of the times `since` + pause that is later than `tried_at`.

    Return None if all of them have passed.
    """
    for seconds in pauses:
        due_at = since + timedelta(seconds=seconds)
        if due_at > tried_at:
            return due_at
    return None


def next_search(since: datetime, tried_at: datetime) -> datetime | None:
    """Return the time of the next proof of an unproven role; None when the role is given up.

    `since`: the start of the schedule.
    """
    if soon := first_after(_RETRIES, since, tried_at):
        return soon
    due_at = since + ((tried_at - since) // _HOURLY + 1) * _HOURLY
    return due_at if due_at <= since + timedelta(days=SEARCH_DAYS) else None


def next_slot(connection_id: UUID, checked_at: datetime, seconds: int) -> datetime:
    """Return the time of a connection's next routine proof.

    Each connection has one slot in each interval of so many seconds, at a position that its id
    decides. So the proofs are spread evenly, even if many were late, as after a restart. Jitter
    delays the proof by up to a twentieth of the interval. A slot within the next quarter of the
    interval is skipped, so that no slot is used twice.
    """
    # The last bits of a UUIDv7 are random
    slot = (connection_id.int & 0xFFFFFFFF) / 2**32 * seconds
    number = math.ceil((checked_at.timestamp() + seconds / 4 - slot) / seconds)
    jitter = random.uniform(0, seconds / 20)  # noqa: S311  no secret
    return datetime.fromtimestamp(slot + number * seconds + jitter, UTC)


class ProofSchedule(Identified):
    """The columns of a connection that its schedule of proofs uses."""

    # The time of the next proof; None: no proof is scheduled
    due_at: Mapped[datetime | None] = mapped_column(default=now)
    # The start of the schedule
    due_since: Mapped[datetime | None]
    due_for: Mapped[Trigger] = mapped_column(default=Trigger.CREATED)
    # The latest attempt at a proof
    tried_at: Mapped[datetime | None] = mapped_column(index=True)
    # Since when the role has refused its own External ID at every attempt
    refusing_since: Mapped[datetime | None]
    # When a client last reported, with effect, that AWS refuses a session of the role
    refused_at: Mapped[datetime | None]
    # The end of access, as last read in the trust policy or in the stack's message
    access_until: Mapped[datetime | None]

    def has_ended(self, checked_at: datetime) -> bool:
        """Return whether the end of access has passed. The role then refuses Deputy as intended."""
        return self.access_until is not None and self.access_until <= checked_at

    def note_attempt(self, tried_at: datetime, *, refused: bool) -> None:
        """Record an attempt at a proof. `refused`: the role refused its own External ID."""
        self.tried_at = tried_at
        if not refused or self.has_ended(tried_at):
            self.refusing_since = None
        elif self.refusing_since is None:
            self.refusing_since = tried_at

    def schedule_next(
        self,
        status: ConnectionStatus,
        verdict: Verdict,
        checked_at: datetime,
        interval: Interval,
        *,
        restarts: bool,
    ) -> None:
        """Schedule the next proof, after a proof with this verdict.

        `status`: the connection's status after that proof. `restarts`: the schedule starts again.
        """
        if restarts or self.due_since is None:
            self.due_since = checked_at
        self.due_for, since = Trigger.SCHEDULED, self.due_since
        if status is ConnectionStatus.PENDING:
            self.due_at = next_search(since, checked_at)
            return
        due_at = next_slot(self.id, checked_at, interval.seconds)
        # A sum would overflow if access_until is the last possible date, so subtract instead.
        if self.access_until and checked_at - _LATE < self.access_until < due_at:
            due_at = self.access_until + _LATE
        if verdict is Verdict.INCONCLUSIVE:
            sooner: datetime | None = checked_at + interval.pause
        else:
            verified = status is ConnectionStatus.VERIFIED
            sooner = first_after(SETTLING if verified else _RETRIES, since, checked_at)
        self.due_at = min(due_at, sooner or due_at)
