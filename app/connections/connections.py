"""Connections: a tenant's links to IAM roles, from their creation to their deletion.

A new connection is pending until it is proven, and so is a resumed one. docs/architecture.md lists
the invariants.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, func, select

from app.approvals.approvals import SetRequests, must_be_approved
from app.audit import Actor, actions
from app.audit.details import StatusChange
from app.clock import now
from app.config import Config
from app.connections import allowed_roles
from app.connections.kit_names import new_names
from app.errors import ConflictError, NotFoundError
from app.identity import Principal, ensure_room, lock_owned, one_or_not_found, owned, tenant_of
from app.ids import RoleArn
from app.limits.limits import CONNECTIONS, SEARCHES
from app.permissions.permission_sets import PermissionSet, PermissionSets
from app.proofs.proof_queue import REQUEST_LEASE
from app.proofs.verification import PATIENCE, Verification, latest_conclusive
from app.rotation.rotations import current_external_id_id
from app.store.database import Database, Session, until_committed
from app.store.models import Connection, ConnectionStatus, Proof, Tenant, Trigger, live_of
from app.tenants import suspension


def add_pending(
    db: Session,
    config: Config,
    actor: Actor,
    tenant: Tenant,
    role: RoleArn,
    *,
    permission_set: PermissionSet,
    approved: bool,
) -> Connection:
    """Add a connection that is pending and due at once, and return it.

    The tenant's row must be locked. `approved`: the vendor itself adds the connection. Raises
    RateLimitedError if the tenant has as many connections as it may have, RoleNotAllowedError for
    an undeclared account, and AccountClosedError.
    """
    if not approved:
        allowed_roles.ensure_account_open(db, tenant.id, role.account_id)
        allowed_roles.ensure_not_removed(db, tenant.id, role.account_id)
    to_approve = must_be_approved(db, config, tenant, role.account_id, permission_set)
    live = select(func.count()).where(live_of(tenant.id))
    ensure_room(db, live, CONNECTIONS.with_setting(config))
    connection = Connection(
        tenant_id=tenant.id,
        external_id_id=current_external_id_id(db, tenant.id),
        role_arn=role.text,
        account_id=role.account_id,
        permission_set=permission_set.name,
    )
    db.add(connection)
    db.flush()
    if to_approve and not approved:
        SetRequests(db, actor, connection).require_approval()
    return connection


def to_role(tenant_id: UUID, role: RoleArn) -> Select[Connection]:
    return select(Connection).filter_by(tenant_id=tenant_id, role_arn=role.text)


def _deletable(
    db: Session, principal: Principal, tenant_id: UUID, connection_id: UUID, *, lock: bool
) -> Connection:
    """Return a connection that the principal may delete. Raises NotFoundError.

    The vendor may also delete a connection that a bound key has deleted, if the tenant is live.
    """
    try:
        return owned(db, principal, tenant_id, connection_id, lock=lock)
    except NotFoundError:
        if not principal.is_vendor:
            raise
    tenant_of(db, principal, tenant_id)
    deleted = select(Connection).filter_by(
        tenant_id=tenant_id, id=connection_id, deleted_by_bound=True
    )
    if lock:
        deleted = deleted.with_for_update(of=Connection, key_share=True)
    return one_or_not_found(db, deleted)


def _ensure_few_searches(db: Session, tenant_id: UUID) -> None:
    searches = select(func.count()).where(
        Connection.tenant_id == tenant_id,
        Connection.found_by_account,
        Connection.status == ConnectionStatus.PENDING,
        Connection.role_unique_id.is_(None),
        Connection.verified_at.is_(None),
        Connection.due_at.is_not(None),
    )
    ensure_room(db, searches, SEARCHES)


_OF_PROOF = [column for column in Proof.__table__.c if column.name != "connection_id"]


class _Earlier(NamedTuple):
    """The latest conclusive proof of a deleted connection, and whether its role could read itself.

    `proof`: its columns; None if there was none.
    """

    reads_itself: bool | None
    proof: Mapping[Any, Any] | None


def _inherit(db: Session, connection: Connection, earlier: _Earlier) -> None:
    """Keep what was known about the role of a connection that was deleted and added again.

    Otherwise deleting and adding it would make Deputy forget a hole of the role, or that the role
    could read itself.
    """
    connection.reads_itself = earlier.reads_itself
    if earlier.proof:
        db.add(Proof(connection_id=connection.id, **earlier.proof))
        db.flush()


@dataclass
class Connections:
    """Creates, reads, suspends, resumes and deletes connections."""

    _db: Database
    _verification: Verification
    _config: Config
    _sets: PermissionSets

    def kit_role_arn(self, tenant_id: UUID, account_id: str, permission_set: str | None) -> str:
        """Return the ARN of the role that the onboarding kit makes in that account.

        Raises ValidationFailedError.
        """
        chosen, config = self._sets.choose(permission_set).name, self._config
        with self._db.read() as db:
            names = new_names(db, config, self._sets, tenant_id, chosen)
        return f"arn:{config.aws.broker.partition}:iam::{account_id}:role/{names.role}"

    def create(
        self,
        principal: Principal,
        tenant_id: UUID,
        *,
        role_arn: str = "",
        account_id: str = "",
        permission_set: str | None = None,
    ) -> Connection:
        """Create a connection to a role, prove it once and return it.

        The connection stays pending if the proof does not succeed. If an account's id is given
        instead of an ARN, the role is the one that the kit makes there. Then only background
        workers look for it, because AWS gives the same answer for an absent role and for a role
        that refuses us.

        Raises ValidationFailedError, RoleNotAllowedError, NotFoundError and SuspendedError. Raises
        ConflictError if the tenant has a live connection to this role, if the vendor deleted the
        connection to it, or if the vendor suspended a connection in the same account. Raises
        RateLimitedError for too many connections, or for so many searches that a tenant could scan
        accounts.
        """
        role = self._allowed(role_arn or self.kit_role_arn(tenant_id, account_id, permission_set))
        chosen = self._sets.choose(permission_set)
        with self._db.write(principal) as db:
            tenant = tenant_of(db, principal, tenant_id, lock=True)
            tenant.ensure_active()
            earlier = self._clear_tombstone(db, principal, tenant_id, role)
            connection = add_pending(
                db,
                self._config,
                principal.actor,
                tenant,
                role,
                permission_set=chosen,
                approved=principal.is_vendor,
            )
            connection.onboarding_link_id = principal.link_id
            if earlier is not None:
                _inherit(db, connection, earlier)
            if account_id:
                _ensure_few_searches(db, tenant_id)
                connection.found_by_account = True
                connection.make_due(now(), Trigger.CREATED)
            else:
                connection.due_at = now() + REQUEST_LEASE
            actions.CONNECTION_CREATED.record_about(
                db, principal.actor, connection, {"role_arn": role.text}
            )
        if account_id:
            return self.get(principal, tenant_id, connection.id)
        return self._verification.verify(
            principal, tenant_id, connection.id, trigger=Trigger.CREATED, patience=PATIENCE
        )

    def _allowed(self, role_arn: str) -> RoleArn:
        """Return the role, which may have an imported name if its deleted connection is there."""
        is_imported = role_arn.rpartition("/")[2] in self._config.aws.imported_role_names
        return allowed_roles.allowed_role(self._config, role_arn, imported=is_imported)

    def _clear_tombstone(
        self, db: Session, principal: Principal, tenant_id: UUID, role: RoleArn
    ) -> _Earlier | None:
        """Delete the row of a deleted connection to this role, and return what was known about it.

        An onboarding link may not do that (invariant 12). A bound key may do it only if a bound key
        deleted the connection. Raises ConflictError if the principal may not do it, or if the
        connection is live. Raises RoleNotAllowedError for a new role with an imported name.
        """
        # Locked, so that a concurrent deletion by the vendor is not overlooked.
        query = to_role(tenant_id, role).with_for_update(of=Connection, key_share=True)
        earlier = db.scalars(query).one_or_none()
        if earlier is None:
            # Only an import adds a role with an imported name the first time
            allowed_roles.allowed_role(self._config, role.text)
            return None
        if earlier.status is not ConnectionStatus.DELETED:
            raise ConflictError("This tenant has a connection to this role already.")
        if not principal.may_add_deleted:
            raise ConflictError(
                "This connection was removed. Ask the vendor that sent you the link to add it"
                " again."
            )
        if not (principal.is_vendor or earlier.deleted_by_bound):
            raise ConflictError("The vendor deleted this connection, and has to add it again.")
        # Otherwise a key for some permission sets could add the connection again with a permission
        # set that its role does not have.
        principal.require_sets(earlier.permission_sets)
        latest = latest_conclusive(earlier.id).with_only_columns(*_OF_PROOF)
        kept = _Earlier(earlier.reads_itself, db.execute(latest).mappings().first())
        db.delete(earlier)
        db.flush()
        return kept

    def get(self, principal: Principal, tenant_id: UUID, connection_id: UUID) -> Connection:
        with self._db.read() as db:
            return owned(db, principal, tenant_id, connection_id)

    @until_committed
    def suspend(
        self, principal: Principal, tenant_id: UUID, connection_id: UUID, *, reason: str
    ) -> Connection:
        """Suspend a connection: issuing stops at once. Raises NotFoundError, ConflictError."""
        # Refuse an absent connection before the wait for the write lock.
        self.get(principal, tenant_id, connection_id)
        with self._db.write(principal) as db:
            connection = owned(db, principal, tenant_id, connection_id, lock=True)
            was = connection.status
            suspension.suspend(connection, principal, reason=reason)
            actions.CONNECTION_SUSPENDED.record_about(
                db,
                principal.actor,
                connection,
                {**_status_change(was, connection), "reason": reason},
            )
            return connection

    def resume(
        self, principal: Principal, tenant_id: UUID, connection_id: UUID, *, reason: str
    ) -> Connection:
        """Set a connection back to pending, prove it once and return it.

        Raises NotFoundError, SuspendedError, ConflictError, and RateLimitedError for too many
        searches.
        """
        with self._db.write(principal) as db:
            connection = lock_owned(db, principal, tenant_id, connection_id)
            connection.tenant.ensure_active()
            suspension.ensure_may_undo(connection, principal)
            if not principal.is_vendor:
                allowed_roles.ensure_account_open(db, tenant_id, connection.account_id)
            if connection.is_search and connection.status is ConnectionStatus.SUSPENDED:
                # Otherwise suspended searches could pile up, and then all be resumed together.
                _ensure_few_searches(db, tenant_id)
            was = connection.status
            connection.resume()
            connection.due_at = now() + REQUEST_LEASE
            actions.CONNECTION_RESUMED.record_about(
                db,
                principal.actor,
                connection,
                {**_status_change(was, connection), "reason": reason},
            )
        return self._verification.verify(
            principal, tenant_id, connection_id, trigger=Trigger.RESUMED
        )

    @until_committed
    def delete(self, principal: Principal, tenant_id: UUID, connection_id: UUID) -> None:
        """Delete a connection: issuing stops at once, and its row stays as a tombstone.

        The vendor may also delete a connection that a bound key has already deleted. From then on,
        only the vendor can add it again. Raises NotFoundError, ConflictError.
        """
        bound = not principal.is_vendor
        with self._db.read() as db:
            # Refuse an absent connection before the wait for the write lock.
            _deletable(db, principal, tenant_id, connection_id, lock=False)
        with self._db.write(principal) as db:
            connection = _deletable(db, principal, tenant_id, connection_id, lock=True)
            suspension.ensure_may_undo(connection, principal)
            was = connection.status
            connection.delete(now(), bound=bound)
            actions.CONNECTION_DELETED.record_about(
                db,
                principal.actor,
                connection,
                {**_status_change(was, connection), "role_arn": connection.role_arn},
            )


def _status_change(was: ConnectionStatus, connection: Connection) -> StatusChange:
    """Return the details of an audit event about a new status."""
    return {"was": was, "status": connection.status, "version": connection.version}
