"""The states of connections, and the proofs that decide them."""

import enum
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Base, Identified, same_tenant
from app.store.models.tenant import TenantOwned


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
