"""Approvals: which permission sets the vendor must approve, and the use cases of a request."""

from uuid import UUID

from app.approvals.requests import SetRequests
from app.audit import actions
from app.config import Config
from app.identity import Principal, owned, tenant_of
from app.permissions.permission_sets import PermissionSet, PermissionSets
from app.store.database import Database, Session
from app.store.models import ApprovalDecision, Connection, Tenant
from app.tenants.accounts import is_declared


def must_be_approved(
    db: Session, config: Config, tenant: Tenant, account_id: str, permission_set: PermissionSet
) -> bool:
    """Return whether the vendor must approve this permission set in this account.

    A permission set that writes needs approval unless the tenant declared the account. Otherwise
    the product could write the tenant's data into another party's account. Raises
    RoleNotAllowedError for an undeclared account.
    """
    declared = is_declared(db, tenant, account_id, vendor=config.vendor.vendor_name)
    return permission_set.access == "write" and not declared


class Approvals:
    """Asks for permission sets, and approves them for the vendor."""

    def __init__(self, db: Database, config: Config, sets: PermissionSets) -> None:
        self._db = db
        self._config = config
        self._sets = sets

    def ask_for_set(
        self, caller: Principal, tenant_id: UUID, connection_id: UUID, *, permission_set: str
    ) -> Connection:
        """Ask for the role to move to another permission set, and return the connection.

        Until the role has moved, the connection keeps its own set. A set that writes needs
        approval, as for a new connection. Raises ValidationFailedError, NotFoundError,
        ForbiddenError for a key that is not for its sets, and SuspendedError for the tenant.
        """
        chosen = self._sets.choose(permission_set)
        with self._db.write(caller) as db:
            tenant = tenant_of(db, caller, tenant_id, lock=True)
            connection = owned(db, caller, tenant_id, connection_id, lock=True)
            caller.require_sets(connection.permission_sets)
            tenant.ensure_active()
            decision = None
            if not must_be_approved(db, self._config, tenant, connection.account_id, chosen):
                decision = ApprovalDecision.NOT_NEEDED
            elif caller.is_vendor:
                decision = ApprovalDecision.APPROVED
            if SetRequests(db, caller.actor, connection).ask_for(chosen.name, decision):
                awaiting = chosen.name in connection.sets_to_approve
                actions.CONNECTION_SET_ASKED.record_about(
                    db,
                    caller.actor,
                    connection,
                    {"permission_set": chosen.name, "awaiting_approval": awaiting},
                )
            return connection

    def approve(
        self,
        caller: Principal,
        tenant_id: UUID,
        connection_id: UUID,
        *,
        permission_set: str | None = None,
    ) -> Connection:
        """Approve one permission set that waits for the vendor: the named one, or the only one.

        Raises NotFoundError, ForbiddenError, SuspendedError for the tenant, ConflictError.
        """
        with self._db.write(caller) as db:
            tenant = tenant_of(db, caller, tenant_id, lock=True)
            connection = owned(db, caller, tenant_id, connection_id, lock=True)
            caller.require_vendor()
            tenant.ensure_active()
            db.refresh(connection.external_id_row)  # it may be as old as the wait for the lock
            was, own_set = connection.status, connection.permission_set
            requested_set = connection.wanted_permission_set
            SetRequests(db, caller.actor, connection).approve(permission_set)
            actions.CONNECTION_APPROVED.record_about(
                db,
                caller.actor,
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
