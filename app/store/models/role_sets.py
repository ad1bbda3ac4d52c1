"""The permission sets of a connection.

They are its own, the one that its role is to move to, and those that its role has.
"""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import String, false
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.errors import ConflictError
from app.store.models.states import Trigger


def _name() -> Any:
    return mapped_column(String(64))


class RoleSets:
    """The columns of a connection's permission sets, and how it moves from one to another."""

    permission_set: Mapped[str] = _name()
    # Version of its own set that its role has, according to its stack or its tag
    permission_set_version: Mapped[int | None]
    # The set that its role is to move to, the version of it that the role already has, and whether
    # the vendor approved the move.
    wanted_permission_set: Mapped[str | None] = _name()
    wanted_version: Mapped[int | None]
    wanted_approved: Mapped[bool] = mapped_column(default=False, server_default=false())
    # Another set that its role has: from the tag at the latest proof that read it, and from later
    # messages of its stack.
    tagged_set: Mapped[str | None] = _name()
    stack_set: Mapped[str | None] = _name()
    # Whether a proof could read the role, at the last time that this was known
    reads_itself: Mapped[bool | None]
    # Its own set waits for approval
    awaiting_approval: Mapped[bool] = mapped_column(default=False, server_default=false())
    approved_set = cast("str | None", None)  # no column: the set of the latest `Connection.approve`

    def make_due(self, at: datetime, trigger: Trigger) -> None:
        raise NotImplementedError

    @property
    def sets_to_approve(self) -> list[str]:
        """The permission sets that wait for the vendor's approval.

        They can be its own and the one that its role is to move to. Until a move is approved the
        connection keeps its own set.
        """
        own, wanted = self.permission_set, self.wanted_permission_set
        waiting = [own] if self.awaiting_approval else []
        return waiting if wanted is None or self.wanted_approved else [*waiting, wanted]

    @property
    def awaits_approval(self) -> bool:
        return bool(self.sets_to_approve)

    def set_to_approve(self, permission_set: str | None) -> str:
        """Return the set that an approval is about. `permission_set`: the name in the request.

        Raises ConflictError when no set waits, when the named one does not wait, and when none is
        named although two wait.
        """
        waiting = self.sets_to_approve
        if not waiting:
            raise ConflictError("This connection does not await approval.")
        if permission_set is None and len(waiting) > 1:
            raise ConflictError(
                f"Two permission sets await approval: {' and '.join(waiting)}. Name the one to"
                " approve."
            )
        if permission_set not in {None, *waiting}:
            raise ConflictError(
                f"This permission set does not await approval. Waiting: {', '.join(waiting)}."
            )
        return permission_set or waiting[0]

    def ask_for_set(self, name: str, *, approved: bool) -> bool:
        """Ask that the role moves to this set. Return whether that is a change.

        Its own set means that it stays.
        """
        before = self.wanted_permission_set, self.wanted_approved
        wanted = None if name == self.permission_set else name
        if wanted != self.wanted_permission_set:
            self.wanted_permission_set, self.wanted_version, self.wanted_approved = (
                wanted,
                None,
                False,
            )
        self.wanted_approved = wanted is not None and (self.wanted_approved or approved)
        new = before != (self.wanted_permission_set, self.wanted_approved)
        self._move()
        return new

    @property
    def permission_sets(self) -> frozenset[str]:
        """The set of the connection, and each other set that its role is known to have.

        A key must cover all of them.
        """
        return frozenset(filter(None, (self.permission_set, self.tagged_set, self.stack_set)))

    def role_was_made_from(self, name: str, version: int | None, *, by_tag: bool) -> None:
        """Record the set that its role was made from, according to its tag or its stack's message.

        `version`: None if unknown. The connection moves only to a set that was asked for. The tag
        outweighs messages, because everybody with the tenant's registration token may send a
        message. A message only adds a set that was asked for.
        """
        if by_tag:
            self.tagged_set, self.stack_set = name, None
        elif name == self.wanted_permission_set != self.stack_set:
            self.tagged_set, self.stack_set = self.tagged_set or self.stack_set, name
        self._forget_own_set()
        if version is None:
            return
        if name == self.permission_set:
            self.permission_set_version, self.wanted_version = version, None
        elif name == self.wanted_permission_set:
            self.wanted_version = version
            self._move()

    def _move(self) -> None:
        """Move to the requested set, once its role has it and the vendor has approved it.

        A role that can be read may still have the old set, until its tag names the new one.
        """
        if (
            self.wanted_permission_set is None
            or self.wanted_version is None
            or not self.wanted_approved
        ):
            return
        if self.reads_itself:
            self.tagged_set = self.tagged_set or self.permission_set
        self.permission_set, self.permission_set_version = (
            self.wanted_permission_set,
            self.wanted_version,
        )
        self.wanted_permission_set, self.wanted_version, self.wanted_approved = None, None, False
        self._forget_own_set()
        if self.awaiting_approval:
            self.awaiting_approval = False
            self.make_due(now(), Trigger.REQUESTED)

    def _forget_own_set(self) -> None:
        own = self.permission_set
        self.tagged_set = None if self.tagged_set == own else self.tagged_set
        self.stack_set = None if self.stack_set == own else self.stack_set
