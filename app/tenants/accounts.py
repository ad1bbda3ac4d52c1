"""The AWS accounts that a tenant declares.

A tenant with a list may have roles only in these accounts, whether an API key, an onboarding link
or a stack's message adds the role. Otherwise the holder of a link could add a role in an account of
their own, and the product would treat that account as the customer's. A tenant without a list may
have roles in any account, and none counts as declared.
"""

from collections.abc import Iterable

from sqlalchemy import Uuid, bindparam, select, text
from sqlalchemy.orm import Session

from app.errors import ConflictError
from app.store.database import as_json
from app.store.models import Connection, Tenant, TenantAccount, live_of

MOST = 10_000  # maximum number of accounts of one tenant
# All accounts are passed in one parameter. With a parameter for each, ten thousand accounts take
# 0.25 s, and more on PostgreSQL.
_EACH = {
    "sqlite": "SELECT value FROM json_each(:accounts)",
    "postgresql": "SELECT json_array_elements_text(CAST(:accounts AS json))",
}
_ADD = (
    "INSERT INTO tenant_accounts (tenant_id, account_id) SELECT :tenant_id, each.* FROM ({each}) AS"
    " each"
)
_REMOVE = "DELETE FROM tenant_accounts WHERE tenant_id = :tenant_id AND account_id IN ({each})"


def declare(db: Session, tenant: Tenant, accounts: Iterable[str] | None) -> None:
    """Replace the tenant's list of accounts. None allows any account.

    The tenant's row must be locked, and `tenant.accounts` must have the current list. Raises
    ConflictError if the new list lacks the account of a live connection, because that connection
    would go on issuing.
    """
    declared, before = set(accounts or ()), set(tenant.accounts or ())
    if accounts is not None:
        used = db.scalars(select(Connection.account_id).where(live_of(tenant.id)))
        left_out = [account_id for account_id in used if account_id not in declared]
        if left_out:
            raise ConflictError(
                f"The tenant has {len(left_out)} connections in accounts that this list leaves out;"
                " delete them first, or add their accounts."
            )
    for statement, changed in ((_ADD, declared - before), (_REMOVE, before - declared)):
        if changed:
            query = text(statement.format(each=_EACH[db.get_bind().dialect.name]))
            # Sorted, because inserting sorted rows into a b-tree takes half the time.
            rows = {"tenant_id": tenant.id, "accounts": as_json(sorted(changed))}
            db.execute(query.bindparams(bindparam("tenant_id", type_=Uuid())), rows)
    tenant.declares_accounts = accounts is not None
    tenant.accounts = None if accounts is None else sorted(declared)


def accounts_of(db: Session, tenant: Tenant) -> list[str] | None:
    """Return the tenant's list of accounts; None allows any account.

    The query returns strings, because creating thousands of ORM objects would take 40 ms.
    """
    own = TenantAccount.tenant_id == tenant.id
    query = select(TenantAccount.account_id).where(own).order_by(TenantAccount.account_id)
    return list(db.connection().scalars(query)) if tenant.declares_accounts else None
