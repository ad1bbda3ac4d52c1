"""Approvals: the requests for permission sets, from their opening to the vendor's decision.

A role moves to another permission set after three events. Somebody requests the move, the vendor
approves it if that is necessary, and the role's stack or tag reports the new permission set. The
last two may come in either order.
"""

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select

from app.audit import Actor, actions
from app.clock import now
from app.config import Config
from app.errors import ConflictError
from app.identity import Principal, lock_owned
from app.ids import new_id
from app.permissions.permission_sets import PermissionSet, PermissionSets, read_label
from app.proofs.schedule import schedule_after_approval
from app.store.database import Database, Session
from app.store.history import delete_older
from app.store.models import (
    Approval,
    ApprovalDecision,
    Connection,
    PermissionSetVersion,
    Tenant,
    Trigger,
)
from app.tenants.declared_accounts import ensure_declared


def must_be_approved(
    db: Session, config: Config, tenant: Tenant, account_id: str, permission_set: PermissionSet
) -> bool:
    """Return whether the vendor must approve this permission set in this account.

    If the tenant has no list of accounts, a permission set with write access needs approval.
    Without approval, the product could write the tenant's data into another party's account. If the
    tenant has a list, nothing needs approval. Raises RoleNotAllowedError for an account that is not
    in the list.
    """
    if not tenant.declares_accounts:
        return permission_set.access == "write"
    ensure_declared(db, config, tenant, account_id)
    return False


def request_to_approve(connection: Connection, permission_set: str | None) -> Approval:
    """Return the request that the vendor approves.

    `permission_set`: the name that the vendor gives, if any. Raises ConflictError if no request
    waits, if the named one does not wait, or if none is named although two wait.
    """
    waiting = connection.requests_to_approve
    if not waiting:
        raise ConflictError("This connection does not await approval.")
    if permission_set is None and len(waiting) > 1:
        raise ConflictError(
            f"Two permission sets await approval: {' and '.join(waiting)}. Name the one to approve."
        )
    if permission_set not in {None, *waiting}:
        raise ConflictError(
            f"This permission set does not await approval. Waiting: {', '.join(waiting)}."
        )
    return waiting[permission_set or next(iter(waiting))]


class SetRequests(NamedTuple):
    """Opens, decides and ends a connection's requests for permission sets on behalf of an actor.

    The connection's row must be locked in the transaction `db`.
    """

    db: Session
    actor: Actor
    connection: Connection

    def require_approval(self) -> None:
        """Request approval for a new connection's permission set. Nothing is issued before it."""
        connection = self.connection
        connection.set_approval(self._open(connection.permission_set, "The connection is new."))

    def ask_for(self, permission_set: str, decision: ApprovalDecision | None) -> bool:
        """Request that the role moves to this permission set. Return whether that is a change.

        For the connection's own permission set, only withdraw an earlier request. `decision`: None
        if the vendor has to approve the permission set.
        """
        connection, move = self.connection, self.connection.move
        own_set = connection.permission_set
        is_change = (connection.wanted_permission_set or own_set) != permission_set
        if is_change:
            if move is not None:
                self._decide(move, ApprovalDecision.WITHDRAWN)
                move = None
            if permission_set != own_set:
                move = self._open(permission_set, f"The role is to move from {own_set}.")
            connection.set_move(move)
        if move is not None and move.waits and decision is not None:
            self._decide(move, decision)
            is_change = True
        self._move()
        return is_change

    def approve(self, permission_set: str | None) -> None:
        """Approve one permission set for the vendor. Other requests go on waiting.

        Raises the same errors as `request_to_approve`.
        """
        request = request_to_approve(self.connection, permission_set)
        self._decide(request, ApprovalDecision.APPROVED)
        self.connection.approved_set = request.permission_set
        if request is self.connection.move:
            self._move()
        else:
            approved_at = now()
            if self.connection.approve(approved_at):
                schedule_after_approval(self.connection, approved_at)

    def apply_label(self, sets: PermissionSets, label: str | None, *, by_tag: bool) -> None:
        """Apply a permission set's label, from the role's tag (`by_tag`) or from a stack's message.

        The label is ignored unless its permission set is configured now or was published. A version
        that is neither configured nor published counts as unknown.
        """
        name, version = read_label(label or "") or ("", 0)
        published = select(PermissionSetVersion.version).filter_by(name=name)
        versions = {*self.db.scalars(published), sets.versions.get(name)} - {None}
        if versions:
            self.note_set(name, version if version in versions else None, by_tag=by_tag)

    def note_set(self, name: str, version: int | None, *, by_tag: bool) -> None:
        """Record the permission set that the role was made from. `version`: None if unknown.

        The connection moves only to a permission set that was requested.
        """
        connection, move = self.connection, self.connection.move
        connection.note_set(name, by_tag=by_tag)
        if version is None:
            return
        if name == connection.permission_set:
            connection.permission_set_version = version
            if move is not None:
                move.version = None
        elif move is not None and name == move.permission_set:
            move.version = version
            self._move(by_tag=by_tag)

    def _move(self, *, by_tag: bool = False) -> None:
        """Move to the requested permission set if the role has it and the vendor has allowed it."""
        connection, move = self.connection, self.connection.move
        if move is None or move.waits or move.version is None:
            return
        # After messages about two sets, only the tag of a role that can be read says which one it
        # has. A move would forget the connection's own set.
        told_more = connection.tagged_set not in {None, move.permission_set}
        if connection.reads_itself and told_more and not by_tag:
            return
        before = connection.permission_set
        connection.change_set(move.permission_set, move.version)
        connection.set_move(None)
        if connection.approval is not None:  # the request for the old permission set
            self._decide(connection.approval, ApprovalDecision.WITHDRAWN)
            connection.set_approval(None)
            connection.make_due(now(), Trigger.REQUESTED)
        actions.CONNECTION_SET_CHANGED.record_about(
            self.db,
            self.actor,
            connection,
            {"from": before, "to": move.permission_set, "permission_set_version": move.version},
        )

    def _open(self, permission_set: str, reason: str) -> Approval:
        request = Approval(
            id=new_id(),
            tenant_id=self.connection.tenant_id,
            connection_id=self.connection.id,
            permission_set=permission_set,
            reason=reason,
            asked_by=self.actor.kind,
            asked_by_id=self.actor.id,
        )
        self.db.add(request)
        return request

    def _decide(self, request: Approval, decision: ApprovalDecision) -> None:
        """Store the decision and its actor. Do nothing if the request is decided already."""
        if request.waits:
            request.decision, request.decided_at = decision, now()
            request.decided_by, request.decided_by_id = self.actor.kind, self.actor.id


@dataclass
class Approvals:
    """Requests permission sets, and approves them for the vendor."""

    _db: Database
    _config: Config
    _sets: PermissionSets

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
            connection = lock_owned(db, principal, tenant_id, connection_id)
            principal.require_sets(connection.permission_sets)
            connection.tenant.ensure_active()
            decision = None
            if not must_be_approved(
                db, self._config, connection.tenant, connection.account_id, chosen
            ):
                decision = ApprovalDecision.NOT_NEEDED
            elif principal.is_vendor:
                decision = ApprovalDecision.APPROVED
            if SetRequests(db, principal.actor, connection).ask_for(chosen.name, decision):
                in_use = connection.approval_id, connection.move_id
                delete_older(db, Approval, connection.id, *in_use)
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
            connection = lock_owned(db, principal, tenant_id, connection_id)
            principal.require_vendor()
            connection.tenant.ensure_active()
            # The External ID may have been loaded before the wait for the lock.
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
