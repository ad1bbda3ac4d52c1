"""The states that tenants, External IDs and connections can be in, and what a proof can say."""

import enum

from app.errors import SuspendedError


class TenantStatus(enum.StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class ExternalIdState(enum.StrEnum):
    """`next` and `retiring` belong to a rotation; a live tenant has exactly one `current`."""

    NEXT = "next"
    CURRENT = "current"
    RETIRING = "retiring"
    RETIRED = "retired"


class ConnectionStatus(enum.StrEnum):
    PENDING = "pending"
    VERIFIED = "verified"
    BROKEN = "broken"
    INSECURE = "insecure"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class StackState(enum.StrEnum):
    """What the messages of a role's stack say of that stack. A claim: the page tells it, and nothing is decided by it."""

    MADE = "made"
    ROLLED_BACK = "rolled_back"
    DELETED = "deleted"


class Verdict(enum.StrEnum):
    """What a proof says; `inconclusive` says nothing, and changes nothing."""

    PROVEN = "proven"
    INSECURE = "insecure"
    UNASSUMABLE = "unassumable"
    INCONCLUSIVE = "inconclusive"


class Trigger(enum.StrEnum):
    """Why a proof is made."""

    CREATED = "created"
    SCHEDULED = "scheduled"
    REQUESTED = "requested"  # a person asked for it
    REGISTERED = "registered"  # a stack's message
    ROTATION = "rotation"
    ISSUING = "issuing"  # AWS refused a session, or an issuance needed a fresh proof
    RESUMED = "resumed"


# Nobody who waits for the answer asked for these proofs, and there are many of them.
ROUTINE = frozenset({Trigger.SCHEDULED, Trigger.ISSUING, Trigger.ROTATION})


def ensure_active(status: TenantStatus) -> None:
    """Raises SuspendedError for a tenant that is not active."""
    if status is not TenantStatus.ACTIVE:
        raise SuspendedError("This tenant is suspended; resume it first.")


AWAITING_APPROVAL = "It may change things in an account that was not declared; the vendor has to approve it."
_WHY_NOT = {
    ConnectionStatus.PENDING: "Its role is not proven yet; see verification.",
    ConnectionStatus.BROKEN: "Its role can't be assumed any more; see verification.",
    ConnectionStatus.INSECURE: "Its role lets strangers in; see verification.",
    ConnectionStatus.SUSPENDED: "The connection is suspended; resume it first.",
}


def why_not(tenant: TenantStatus, connection: ConnectionStatus, *, awaiting_approval: bool = False) -> str | None:
    """Why nothing is issued for a connection, in words; None where credentials are issued."""
    if tenant is not TenantStatus.ACTIVE:
        return "The tenant is suspended; resume it first."
    if awaiting_approval and connection is ConnectionStatus.PENDING:
        return AWAITING_APPROVAL
    return _WHY_NOT.get(connection)
