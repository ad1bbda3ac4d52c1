"""The states of connections and of their stacks: which verdict leads where, and the sentences."""

import enum
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from app.store.models.proof import ACCOUNT, DEMANDS, FOREIGN, MISSING, OWN, STRANGER, Proof, Verdict


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


SEE_VERIFICATION = {
    ConnectionStatus.PENDING: "Its role is not proven yet; see verification.",
    ConnectionStatus.BROKEN: "Its role can't be assumed any more; see verification.",
    ConnectionStatus.ENDED: "Its access has ended, as the customer set.",
    ConnectionStatus.INSECURE: "Its role lets others in; see verification.",
}
# The first entry whose checks have all failed describes the failure. `{now}` is replaced by " now"
# if the connection was proven before, and by nothing otherwise.
_FAILED = (
    ({MISSING, FOREIGN}, "The role{now} accepts any External ID."),
    ({MISSING}, "The role{now} lets us in without an External ID."),
    ({FOREIGN}, "The role{now} accepts an External ID that is not this tenant's."),
    ({STRANGER}, "The role{now} lets in others than us."),
    (
        {DEMANDS},
        "The trust policy{now} lets us in without the External ID, or with another customer's.",
    ),
    ({OWN}, "The role{now} refuses this tenant's External ID, or was deleted."),
    ({ACCOUNT}, "The role is{now} in another account than its ARN says."),
)


def failure_of(checks: Iterable[Mapping[str, Any]], *, before: bool) -> str | None:
    """Return a sentence for the customer about a proof's failed checks; None if none failed.

    `before`: whether an earlier proof passed.
    """
    failed = {check["name"] for check in checks if check["outcome"] == "failed"}
    for names, words in _FAILED:
        if names <= failed:
            return words.format(now=" now" if before else "")
    return None


def why_not_verified(
    status: ConnectionStatus,
    ended_at: datetime | None,
    proof: Proof | None,
    verified_at: datetime | None,
) -> str | None:
    """Return a sentence about why a connection is not verified, from its status and latest proof.

    `ended_at`: the end of its access, if the connection has ended.
    """
    if ended_at:
        return f"Its access ended on {ended_at:%-d %B %Y, %H:%M} UTC, as the customer set."
    words = SEE_VERIFICATION.get(status)
    if status is ConnectionStatus.PENDING or proof is None:
        return words
    return failure_of(proof.checks, before=verified_at is not None) or words
