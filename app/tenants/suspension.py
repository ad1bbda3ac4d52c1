"""The rules for who may suspend a tenant or a connection, and who may undo that."""

from app.errors import ConflictError
from app.identity import Principal
from app.store.models import Connection, Tenant
from app.store.models.tenant import Suspension


def suspend(row: Tenant | Connection, principal: Principal, *, reason: str) -> None:
    """Suspend a tenant or a connection now.

    Raises ConflictError when it is suspended already. The vendor may replace a bound key's
    suspension by its own, because a bound key could undo the existing one.
    """
    bound = not principal.is_vendor
    if row.suspended_at is not None and (bound or not row.suspended_by_bound):
        raise ConflictError("This is suspended already.")
    row.suspend(Suspension(principal.actor.kind, bound=bound, reason=reason))


def ensure_may_undo(row: Tenant | Connection, principal: Principal) -> None:
    """Raise ConflictError if the vendor has suspended this and the principal acts for a tenant.

    A tenant must not undo the vendor's suspension, neither by resuming nor by deleting a connection
    and adding it again.
    """
    by_vendor = row.suspended_at is not None and not row.suspended_by_bound
    if by_vendor and not principal.is_vendor:
        raise ConflictError("The vendor suspended this, and has to resume it first.")
