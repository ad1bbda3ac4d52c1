"""Approvals: decide which permission sets the vendor must approve, request them, approve them."""

from uuid import UUID

from app.approvals.requests import SetRequests
from app.audit import actions
from app.config import Config
from app.errors import RoleNotAllowedError
from app.identity import Principal, owned, tenant_of
from app.permissions.permission_sets import PermissionSet, PermissionSets
from app.store.database import Database, Session
from app.store.models import ApprovalDecision, Connection, Tenant, TenantAccount


def must_be_approved(
    db: Session, config: Config, tenant: Tenant, account_id: str, permission_set: PermissionSet
) -> bool:
    """Return whether the vendor must approve this permission set in this account.

    If the tenant has no list of accounts, a permission set with write access needs approval.
    Otherwise the product could write the tenant's data into another party's account. If the tenant
    has a list, nothing needs approval. Raises RoleNotAllowedError for an account that is not in the
    list.
    """
    if not tenant.declares_accounts:
        return permission_set.access == "write"
    if db.get(TenantAccount, (tenant.id, account_id)) is None:
        raise RoleNotAllowedError(
            f"This role's account was not declared; ask {config.vendor.vendor_name} to add it."
        )
    return False


class Approvals:
    """Requests permission sets, and approves them for the vendor."""

    def __init__(self, db: Database, config: Config, sets: PermissionSets) -> None:
        self._db = db
        self._config = config
        self._sets = sets

    def ask_for_set(
        self, principal: Principal, tenant_id: UUID, connection_id: UUID, *, permission_set: str
    ) -> Connection:
        """Request that a role moves to another permission set, and return the connection.

        The connection keeps its permission set until the role has moved. A permission set with
        write access needs approval, as for a new connection. Raises ValidationFailedError,
        NotFoundError, ForbiddenError for a key that does not cover the connection's permission
        sets, and SuspendedError for a suspended tenant.
        """
        chosen = self._sets.choose(permission_set)
        with self._db.write(principal) as db:
            tenant = tenant_of(db, principal, tenant_id, lock=True)
            connection = owned(db, principal, tenant_id, connection_id, lock=True)
            principal.require_sets(connection.permission_sets)
            tenant.ensure_active()
            decision = None
            if not must_be_approved(db, self._config, tenant, connection.account_id, chosen):
                decision = ApprovalDecision.NOT_NEEDED
            elif principal.is_vendor:
                decision = ApprovalDecision.APPROVED
            if SetRequests(db, principal.actor, connection).ask_for(chosen.name, decision):
                awaiting = chosen.name in connection.sets_to_approve
                actions.CONNECTION_SET_ASKED.record_about(
                    db,
                    principal.actor,
                    connection,
                    {"permission_set": chosen.name, "awaiting_approval": awaiting},
                )
            return connection

    def approve(
        self,
        principal: Principal,
        tenant_id: UUID,
        connection_id: UUID,
        *,
        permission_set: str | None = None,
    ) -> Connection:
        """Approve one permission set that waits for the vendor: the named one, or the only one.

        Raises NotFoundError, ForbiddenError, ConflictError, and SuspendedError for a suspended
        tenant.
        """
        with self._db.write(principal) as db:
            tenant = tenant_of(db, principal, tenant_id, lock=True)
            connection = owned(db, principal, tenant_id, connection_id, lock=True)
            principal.require_vendor()
            tenant.ensure_active()
            # it may have been loaded before the wait for the lock
            db.refresh(connection.external_id_row)
            was, own_set = connection.status, connection.permission_set
            requested_set = connection.wanted_permission_set
            SetRequests(db, principal.actor, connection).approve(permission_set)
            actions.CONNECTION_APPROVED.record_about(
                db,
                principal.actor,
                connection,
                {
                    "was": was,
                    "status": connection.status,
                    "version": connection.version,
                    "approved": connection.approved_set,
                    "permission_set": own_set,
                    "wanted_permission_set": requested_set,
                },
            )
            return connection
