"""Declared accounts: the AWS accounts in which a tenant may have roles.

They apply whether an API key, an onboarding link or a stack's message adds a role. Otherwise the
holder of a link could add a role in an account of their own, and the product would treat that
account as the customer's. A tenant without a list may have roles in any account, and none counts as
declared.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, cast

from sqlalchemy import CursorResult, Uuid, bindparam, select, text

from app.config import Config
from app.errors import ConflictError, RoleNotAllowedError
from app.ids import ACCOUNT_ID
from app.store.database import Session, as_json
from app.store.models import Connection, Tenant, TenantAccount, live_of

ACCOUNTS_MAX = 10_000  # maximum number of accounts of one tenant
_BAD_ACCOUNTS = 20  # most invalid accounts that an answer names
# All accounts are passed in one parameter. With a parameter for each, ten thousand accounts take
# more than 0.25 s.
_EACH = "SELECT json_array_elements_text(CAST(:accounts AS json))"
_REPLACE_ACCOUNTS = (
    f"DELETE FROM tenant_accounts WHERE tenant_id = :tenant_id AND account_id NOT IN ({_EACH})",  # noqa: S608  a constant
    (
        "INSERT INTO tenant_accounts (tenant_id, account_id) SELECT :tenant_id, each.* FROM"  # noqa: S608
        f" ({_EACH}) AS each ON CONFLICT DO NOTHING"
    ),
)


def invalid_accounts(accounts: Sequence[Any]) -> list[int]:
    """Return the indexes of the first invalid account ids. The search stops after some of them."""
    invalid = (
        index
        for index, account_id in enumerate(accounts)
        if not (isinstance(account_id, str) and ACCOUNT_ID.fullmatch(account_id))
    )
    return list(islice(invalid, _BAD_ACCOUNTS))


def declare(db: Session, tenant: Tenant, accounts: Iterable[str] | None) -> bool:
    """Replace the tenant's list of accounts, and return whether it changed.

    None allows every account. The list is in `tenant.accounts` afterwards. The tenant's row must be
    locked. Raises ConflictError if the new list lacks the account of a live connection, because
    that connection would go on issuing.
    """
    declared = set(accounts or ())
    if accounts is not None:
        used = db.scalars(select(Connection.account_id).where(live_of(tenant.id)))
        left_out = [account_id for account_id in used if account_id not in declared]
        if left_out:
            raise ConflictError(
                f"Connections in accounts that this list leaves out: {len(left_out)}. Delete them"
                " first, or add their accounts."
            )
    is_changed = tenant.declares_accounts != (accounts is not None)
    tenant.accounts = None if accounts is None else sorted(declared)
    if declared or tenant.declares_accounts:  # else there were no rows, and there are none now
        # Sorted, because inserting sorted rows into a b-tree takes half the time
        values = {"tenant_id": tenant.id, "accounts": as_json(sorted(declared))}
        for statement in _REPLACE_ACCOUNTS:
            query = text(statement).bindparams(bindparam("tenant_id", type_=Uuid()))
            result = db.execute(query, values)
            is_changed |= cast("CursorResult[Any]", result).rowcount > 0
    tenant.declares_accounts = accounts is not None
    return is_changed


def ensure_declared(db: Session, config: Config, tenant: Tenant, account_id: str) -> None:
    """Raise RoleNotAllowedError for an account that is not in the tenant's list.

    Call it only for a tenant that has a list (`declares_accounts`).
    """
    if db.get(TenantAccount, (tenant.id, account_id)) is None:
        raise RoleNotAllowedError(
            f"This role's account was not declared; ask {config.vendor.vendor_name} to add it."
        )


def load_accounts(db: Session, tenant: Tenant) -> Tenant:
    """Load the tenant's accounts, which lists of tenants leave out, and return the tenant.

    The query returns strings, because creating thousands of ORM objects would take 40 ms.
    """
    if tenant.declares_accounts:
        query = select(TenantAccount.account_id).filter_by(tenant_id=tenant.id)
        tenant.accounts = list(db.scalars(query.order_by(TenantAccount.account_id)))
    return tenant


def count_accounts(tenant: Tenant) -> int | None:
    """Return the number of accounts for an audit event. Thousands of ids would be too long."""
    return None if tenant.accounts is None else len(tenant.accounts)
