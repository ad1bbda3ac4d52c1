"""The permission sets of a connection: its own, those that its role has, and those asked for."""

from typing import cast
from uuid import UUID

from sqlalchemy.orm import Mapped, declared_attr, relationship

from app.store.models.approval import Approval
from app.store.models.base import Text64


def _request(column: str) -> Mapped[Approval | None]:
    """Return the relationship to the request whose id is in that column of a connection.

    The request is read after its connection, without a join, and only if there is an id.
    """
    join = f"foreign(Connection.{column}) == Approval.id"
    return relationship(Approval, primaryjoin=join, lazy="selectin", viewonly=True)


class RoleSets:
    """The columns of a connection's permission sets, and its open requests for some of them.

    app/approvals/requests.py opens and decides the requests.
    """

    permission_set: Mapped[Text64]
    # Version of its own set that its role has, according to its stack or its tag
    permission_set_version: Mapped[int | None]
    # Another set that its role has: from the tag at the latest proof that read it, and from later
    # messages of its stack.
    tagged_set: Mapped[Text64 | None]
    stack_set: Mapped[Text64 | None]
    # Whether a proof could read the role, at the last time that this was known
    reads_itself: Mapped[bool | None]
    # The request for its own set, while it waits for approval: a verified connection has none.
    # There are no foreign keys, as approvals refer to connections.
    approval_id: Mapped[UUID | None]
    # The request that its role moves to another set, until the role has that set
    move_id: Mapped[UUID | None]
    approved_set = cast("str | None", None)  # no column: the set of the latest approval

    @declared_attr
    def approval(cls) -> Mapped[Approval | None]:  # noqa: N805  SQLAlchemy passes the class
        return _request("approval_id")

    @declared_attr
    def move(cls) -> Mapped[Approval | None]:  # noqa: N805
        return _request("move_id")

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
        """The requests that wait for the vendor's approval, by their permission set.

        They can be for its own set and for the one that its role is to move to. Until a move is
        approved the connection keeps its own set.
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
        """The permission set that its role is to move to."""
        return self.move.permission_set if self.move else None

    @property
    def permission_sets(self) -> frozenset[str]:
        """The set of the connection, and each other set that its role is known to have.

        A key must cover all of them.
        """
        return frozenset(filter(None, (self.permission_set, self.tagged_set, self.stack_set)))

    def note_set(self, name: str, *, by_tag: bool) -> None:
        """Record the set that its role was made from, according to its tag or its stack's message.

        The tag outweighs messages, because everybody with the tenant's registration token may send
        a message. A message only adds a set that was asked for.
        """
        if by_tag:
            self.tagged_set, self.stack_set = name, None
        elif name == self.wanted_permission_set != self.stack_set:
            self.tagged_set, self.stack_set = self.tagged_set or self.stack_set, name
        self._forget_own_set()

    def change_set(self, name: str, version: int) -> None:
        """Make this its own set.

        A role that can be read may still have the old set, until its tag names the new one.
        """
        if self.reads_itself:
            self.tagged_set = self.tagged_set or self.permission_set
        self.permission_set, self.permission_set_version = name, version
        self._forget_own_set()

    def _forget_own_set(self) -> None:
        own = self.permission_set
        self.tagged_set = None if self.tagged_set == own else self.tagged_set
        self.stack_set = None if self.stack_set == own else self.stack_set
