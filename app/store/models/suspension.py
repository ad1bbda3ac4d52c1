"""Suspensions: their columns, and who may suspend or resume over whom."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Mapped

from app.clock import now
from app.errors import ConflictError
from app.store.models.base import Text16, Text200


class Suspension(NamedTuple):
    """A suspension: the kind of actor, whether a bound key did it, and the reason.

    A bound key is confined to one tenant.
    """

    by: str
    bound: bool
    reason: str


class Suspendable:
    """The columns of a suspension, set while it lasts."""

    suspended_at: Mapped[datetime | None]
    suspended_by: Mapped[Text16 | None]
    suspended_by_bound: Mapped[bool | None]
    suspended_reason: Mapped[Text200 | None]

    @property
    def suspended(self) -> dict[str, Any] | None:
        """The suspension's time, kind of actor and reason; None when it is not suspended."""
        if self.suspended_at is None:
            return None
        return {"at": self.suspended_at, "by": self.suspended_by, "reason": self.suspended_reason}

    def ensure_may_undo(self, *, bound: bool) -> None:
        """Raise ConflictError for a bound key when the vendor suspended the row.

        A tenant must not undo the vendor's suspension, neither by resuming nor by deleting the row
        and adding it again.
        """
        if bound and self.suspended_at is not None and not self.suspended_by_bound:
            raise ConflictError("The vendor suspended this, and has to resume it first.")

    def begin_suspension(self, suspension: Suspension) -> None:
        """Set the columns of a suspension that begins now.

        Raises ConflictError when the row is suspended already. The vendor may suspend what a bound
        key suspended, because that key could undo its own suspension.
        """
        if self.suspended_at is not None and (suspension.bound or not self.suspended_by_bound):
            raise ConflictError("This is suspended already.")
        self.suspended_at = now()
        self.suspended_by, self.suspended_by_bound, self.suspended_reason = suspension

    def end_suspension(self) -> None:
        self.suspended_at = self.suspended_by = None
        self.suspended_by_bound = self.suspended_reason = None
