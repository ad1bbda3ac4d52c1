"""The columns of a connection for its proofs' times. app/proofs/schedule.py computes them."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.store.models.base import Identified
from app.store.models.proof import Trigger


class ProofSchedule(Identified):
    """When a connection is due, was tried, and when its access ends."""

    # The time of the next proof; None: no proof is scheduled
    due_at: Mapped[datetime | None] = mapped_column(default=now)
    # The start of the schedule
    due_since: Mapped[datetime | None]
    due_for: Mapped[Trigger] = mapped_column(default=Trigger.CREATED)
    # The latest attempt at a proof
    tried_at: Mapped[datetime | None] = mapped_column(index=True)
    # Since when the role has refused its own External ID at every attempt
    refusing_since: Mapped[datetime | None]
    # When a client's report that AWS refuses a session last took effect
    refused_at: Mapped[datetime | None]
    # The end of access, as last read in the trust policy or in the stack's message
    access_until: Mapped[datetime | None]

    def has_ended(self, checked_at: datetime) -> bool:
        """Return whether the end of access has passed. The role then refuses Deputy as intended."""
        return self.access_until is not None and self.access_until <= checked_at

    def note_attempt(self, tried_at: datetime, *, refused: bool) -> None:
        """Record an attempt at a proof. `refused`: the role refused its own External ID."""
        self.tried_at = tried_at
        if not refused or self.has_ended(tried_at):
            self.refusing_since = None
        elif self.refusing_since is None:
            self.refusing_since = tried_at
