"""Suspensions: their columns, and the rules for who may suspend and resume."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Mapped

from app.clock import now
from app.errors import ConflictError
from app.store.models.base import Text16, Text200


class Suspension(NamedTuple):
    """A suspension. `by`: the kind of actor. `bound`: whether the actor is bound to one tenant."""

    by: str
    bound: bool
    reason: str


class Suspendable:
    """The columns of a suspension, which are None when the row is not suspended."""

    suspended_at: Mapped[datetime | None]
    suspended_by: Mapped[Text16 | None]
    suspended_by_bound: Mapped[bool | None]
    suspended_reason: Mapped[Text200 | None]

    @property
    def suspended(self) -> dict[str, Any] | None:
        """The time, the kind of actor and the reason of the suspension; None without one."""
        if self.suspended_at is None:
            return None
        return {"at": self.suspended_at, "by": self.suspended_by, "reason": self.suspended_reason}

    @property
    def suspension(self) -> dict[str, Any] | None:
        """Return `suspended`, and whether a key that is bound to a tenant suspended the row."""
        return self.suspended and {**self.suspended, "bound": self.suspended_by_bound}

    def ensure_may_undo(self, *, bound: bool) -> None:
        """Raise ConflictError if the vendor suspended the row and `bound` is True.

        A tenant must not undo the vendor's suspension, neither by resuming the row nor by deleting
        it and adding it again.
        """
        if bound and self.suspended_at is not None and not self.suspended_by_bound:
            raise ConflictError("The vendor suspended this, and has to resume it first.")

    def begin_suspension(self, suspension: Suspension) -> None:
        """Suspend the row now.

        Raises ConflictError when the row is suspended already. The vendor may replace a bound key's
        suspension by its own, because a bound key could undo the existing one.
        """
        if self.suspended_at is not None and (suspension.bound or not self.suspended_by_bound):
            raise ConflictError("This is suspended already.")
        self.suspended_at = now()
        self.suspended_by, self.suspended_by_bound, self.suspended_reason = suspension

    def end_suspension(self) -> None:
        self.suspended_at = self.suspended_by = None
        self.suspended_by_bound = self.suspended_reason = None
