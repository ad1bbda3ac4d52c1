"""The columns of a connection for its permission sets."""

from typing import cast
from uuid import UUID

from sqlalchemy.orm import Mapped, declared_attr

from app.store.models.approval import Approval
from app.store.models.base import Text64, row_in


class RoleSets:
    """The columns of a connection for its permission sets and for the open requests for them.

    app/approvals/approvals.py opens and decides the requests.
    """

    # The connection's own permission set
    permission_set: Mapped[Text64]
    # The role's version of that permission set, according to the role's tag or stack
    permission_set_version: Mapped[int | None]
    # Another permission set that the role has, according to the tag that a proof last read
    tagged_set: Mapped[Text64 | None]
    # Another permission set that the role has, according to a later message of its stack
    stack_set: Mapped[Text64 | None]
    # Whether the role may read itself, according to the last proof that tried it
    reads_itself: Mapped[bool | None]
    # The request for the connection's own permission set, while it waits for approval. A verified
    # connection has none. This column and `move_id` are no foreign keys, because approvals refer to
    # connections.
    approval_id: Mapped[UUID | None]
    # The request to move the role to another permission set, until the role has that one
    move_id: Mapped[UUID | None]
    approved_set = cast("str | None", None)  # no column: the permission set that was approved last

    @declared_attr
    def approval(cls) -> Mapped[Approval | None]:  # noqa: N805  SQLAlchemy passes the class
        return row_in("Connection.approval_id", "Approval", "selectin")

    @declared_attr
    def move(cls) -> Mapped[Approval | None]:  # noqa: N805
        return row_in("Connection.move_id", "Approval", "selectin")

    def set_approval(self, request: Approval | None) -> None:
        self.approval, self.approval_id = request, request.id if request else None

    def set_move(self, request: Approval | None) -> None:
        self.move, self.move_id = request, request.id if request else None

    @property
    def awaiting_approval(self) -> bool:
        """Return whether its own permission set waits for the vendor's approval."""
        return self.approval_id is not None

    @property
    def requests_to_approve(self) -> dict[str, Approval]:
        """The requests that wait for the vendor's approval, by the names of the permission sets.

        There can be two: for its own permission set, and for the one that the role is to move to.
        Until the move is approved, the connection keeps its own permission set.
        """
        requests = filter(None, (self.approval, self.move))
        return {request.permission_set: request for request in requests if request.waits}

    @property
    def sets_to_approve(self) -> list[str]:
        return list(self.requests_to_approve)

    @property
    def awaits_approval(self) -> bool:
        return bool(self.sets_to_approve)

    @property
    def wanted_permission_set(self) -> str | None:
        """The permission set that the role is to move to; None if no move is requested."""
        return self.move.permission_set if self.move else None

    @property
    def set_of_role(self) -> tuple[str, int | None]:
        """The permission set that the role has, and its version, even if it awaits approval."""
        if self.move and self.move.version is not None:
            return self.move.permission_set, self.move.version
        return self.permission_set, self.permission_set_version

    @property
    def permission_sets(self) -> frozenset[str]:
        """The connection's own permission set, and the others that its role is known to have.

        An API key may use the connection only if the key is for all of them.
        """
        return frozenset(filter(None, (self.permission_set, self.tagged_set, self.stack_set)))

    def note_set(self, name: str, *, by_tag: bool) -> None:
        """Record that the role has this permission set, according to its tag or a stack's message.

        A tag replaces what was recorded before. A message only adds a permission set that was
        requested, because everybody with the tenant's registration token can send a message.
        """
        if by_tag:
            self.tagged_set, self.stack_set = name, None
        elif name == self.wanted_permission_set != self.stack_set:
            self.tagged_set, self.stack_set = self.tagged_set or self.stack_set, name
        self._forget_own_set()

    def change_set(self, name: str, version: int) -> None:
        """Make this permission set the connection's own.

        If proofs can read the role, it counts as having the old permission set too, until its tag
        names the new one.
        """
        if self.reads_itself:
            self.tagged_set = self.tagged_set or self.permission_set
        self.permission_set, self.permission_set_version = name, version
        self._forget_own_set()

    def _forget_own_set(self) -> None:
        if self.tagged_set == self.permission_set:
            self.tagged_set = None
        if self.stack_set == self.permission_set:
            self.stack_set = None
