"""The states of connections, and the proofs that decide them."""

import enum


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
