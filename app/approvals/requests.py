"""The requests about one connection's permission sets, from their opening to their decision.

A role moves to another set when it was asked for, the vendor allowed it, and the role has it
according to its stack or its tag. The order of the last two does not matter.
"""

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.audit import Actor, actions
from app.clock import now
from app.errors import ConflictError
from app.ids import new_id
from app.permissions.permission_sets import PermissionSets, read_label
from app.store.models import Approval, ApprovalDecision, Connection, PermissionSetVersion, Trigger


def request_to_approve(connection: Connection, permission_set: str | None) -> Approval:
    """Return the request that an approval is about. `permission_set`: the name in the approval.

    Raises ConflictError when no set waits, when the named one does not wait, and when none is named
    although two wait.
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
    """Opens, decides and ends a connection's requests for permission sets, for an actor.

    The connection's row must be locked in the transaction `db`.
    """

    db: Session
    actor: Actor
    connection: Connection

    def require_approval(self) -> None:
        """Request the approval of a new connection's own set. Nothing is issued before."""
        connection = self.connection
        connection.set_approval(self._open(connection.permission_set, "The connection is new."))

    def ask_for(self, permission_set: str, decision: ApprovalDecision | None) -> bool:
        """Ask that the role moves to this set. Return whether that is a change.

        Its own set means that it stays, and withdraws an earlier request. `decision`: None if the
        vendor has to approve the set.
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
        """Approve one set for the vendor. Another set that waits goes on waiting.

        Raises what `request_to_approve` raises.
        """
        request = request_to_approve(self.connection, permission_set)
        self._decide(request, ApprovalDecision.APPROVED)
        self.connection.approved_set = request.permission_set
        if request is self.connection.move:
            self._move()
        else:
            self.connection.approve(now())

    def apply_label(self, sets: PermissionSets, label: str | None, *, by_tag: bool) -> None:
        """Apply the label of a permission set, from the role's tag (`by_tag`) or a stack's message.

        A set counts if it is configured now, or was published. The same holds for its version.
        """
        name, version = read_label(label or "") or ("", 0)
        published = select(PermissionSetVersion.version).where(PermissionSetVersion.name == name)
        versions = {*self.db.scalars(published), sets.versions.get(name)} - {None}
        if versions:
            self.note_set(name, version if version in versions else None, by_tag=by_tag)

    def note_set(self, name: str, version: int | None, *, by_tag: bool) -> None:
        """Record the set that the role was made from. `version`: None if unknown.

        The connection moves only to a set that was asked for.
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
            self._move()

    def _move(self) -> None:
        """Move to the requested set, once its role has it and the vendor has allowed it."""
        connection, move = self.connection, self.connection.move
        if move is None or move.waits or move.version is None:
            return
        before = connection.permission_set
        connection.change_set(move.permission_set, move.version)
        connection.set_move(None)
        if connection.approval is not None:  # of the set before
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
        request.decide(decision, self.actor.kind, self.actor.id)
