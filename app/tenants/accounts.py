"""The AWS accounts that a tenant declares.

With a list, a role in any other account is refused, whatever brings it: an API key, an onboarding link or a stack's
message. Otherwise the holder of a link could add a role of his own and have the product treat its account as the
customer's. Without a list any account will do, and none counts as declared.
"""

from collections.abc import Iterable

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from app.errors import ConflictError, RoleNotAllowedError
from app.store.models import Connection, ConnectionStatus, Tenant, TenantAccount

MOST = 10_000  # accounts of one tenant


def declare(db: Session, tenant: Tenant, accounts: Iterable[str] | None) -> None:
    """Replace the tenant's list; None: any account will do from now on. The tenant's row must be locked.

    Raises ConflictError when the list leaves out the account of a live connection, which would go on issuing.
    """
    wanted = set() if accounts is None else set(accounts)
    if accounts is not None:
        _ensure_keeps_connections(db, tenant, wanted)
    own = TenantAccount.tenant_id == tenant.id
    db.execute(delete(TenantAccount).where(own))
    if wanted:
        rows = [{"tenant_id": tenant.id, "account_id": account} for account in sorted(wanted)]
        db.execute(insert(TenantAccount), rows)
    tenant.declares_accounts = accounts is not None


def _ensure_keeps_connections(db: Session, tenant: Tenant, wanted: set[str]) -> None:
    query = (
        select(Connection.account_id, func.count())
        .where(Connection.tenant_id == tenant.id, Connection.status != ConnectionStatus.DELETED)
        .group_by(Connection.account_id)
    )
    left_out = sum(count for account, count in db.execute(query) if account not in wanted)
    if left_out:
        raise ConflictError(
            f"The tenant has {left_out} connections in accounts that this list leaves out; delete them first, or add"
            " their accounts."
        )


def is_declared(db: Session, tenant: Tenant, account_id: str, *, vendor: str) -> bool:
    """Whether the tenant declares this account; False where any account will do.

    Raises RoleNotAllowedError when the tenant declares others. `vendor`: whom to ask.
    """
    if not tenant.declares_accounts:
        return False
    if db.get(TenantAccount, (tenant.id, account_id)) is None:
        raise RoleNotAllowedError(
            f"This role's account is not among those that were declared; ask {vendor} to add this account."
        )
    return True
