"""The states of tenants, External IDs, connections and stacks, and the verdicts of proofs."""

import enum
from typing import TYPE_CHECKING

from app.errors import (
    ConnectionNotVerifiedError,
    CustomerSetupError,
    ExternalIdWithdrawnError,
    SuspendedError,
)

if TYPE_CHECKING:
    from app.store.models.connection import Connection


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

    A live tenant has exactly one External ID in the state `current`.
    """

    NEXT = "next"
    CURRENT = "current"
    RETIRING = "retiring"
    RETIRED = "retired"


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


WITHDRAWN = (
    "Its External ID was withdrawn; update its role, so that it accepts the one in the onboarding"
    " kit."
)
AWAITING_APPROVAL = (
    "It may change things in an account that was not declared; the vendor has to approve it."
)
_NOT_VERIFIED = (
    "This connection is not verified. Call verify, and read `verification` in the answer."
)
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


def ensure_issues(connection: "Connection", tenant_status: TenantStatus) -> None:
    """Raise an error unless credentials are issued for the connection.

    Raises SuspendedError, ConnectionNotVerifiedError or ExternalIdWithdrawnError.
    """
    tenant_status.ensure_active()
    connection.ensure_not_suspended()
    if connection.status is ConnectionStatus.PENDING and connection.awaiting_approval:
        raise ConnectionNotVerifiedError(AWAITING_APPROVAL)
    if connection.status is not ConnectionStatus.VERIFIED:
        raise ConnectionNotVerifiedError(_NOT_VERIFIED)
    if connection.external_id_row.is_withdrawn:
        raise ExternalIdWithdrawnError(WITHDRAWN)


def why_not(connection: "Connection") -> str | None:
    """Return a sentence that says why no credentials are issued; None if they are issued."""
    try:
        ensure_issues(connection, connection.tenant.status)
    except CustomerSetupError as error:
        if error.detail != _NOT_VERIFIED:
            return error.detail.replace("This", "The", 1)
        words = SEE_VERIFICATION.get(connection.status)
        if connection.status is ConnectionStatus.PENDING:
            return words
        return _what_failed(connection) or words
    return None


def _what_failed(connection: "Connection") -> str | None:
    """Return a sentence for the customer about what failed in the latest proof, or None."""
    if ended_at := connection.ended_at:
        return f"Its access ended on {ended_at:%-d %B %Y, %H:%M} UTC, as the customer set."
    failed = set()
    for check in connection.proof.checks if connection.proof else []:
        if check["outcome"] == "failed":
            failed.add(check["name"])
    for names, words in _FAILED:
        if names <= failed:
            return words.format(now=" now" if connection.verified_at else "")
    return None
