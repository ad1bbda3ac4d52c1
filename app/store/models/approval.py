"""Approvals: what was asked for, by whom and why, and who decided."""

import enum
from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped

from app.clock import now
from app.store.models.base import (
    Base,
    CreatedAt,
    Identified,
    Text16,
    Text64,
    Text200,
    same_tenant,
    state_column,
)
from app.store.models.tenant import TenantOwned


class ApprovalSubject(enum.StrEnum):
    PERMISSION_SET = "permission_set"


class ApprovalDecision(enum.StrEnum):
    """The decision on a request. Only the vendor approves."""

    APPROVED = "approved"
    NOT_NEEDED = "not_needed"  # the set only reads, or the tenant declared the account
    WITHDRAWN = "withdrawn"


class Approval(Identified, TenantOwned, Base):
    """A request about a connection that the vendor may have to approve, and its decision.

    `Connection.approval` is the request for the connection's own permission set, while it waits.
    `Connection.move` is the request for another set, until the role has that set or the request is
    withdrawn. The other rows are the history.
    """

    __tablename__ = "approvals"
    __table_args__ = (
        same_tenant("connection_id", "connections", ondelete="CASCADE"),
        Index("ix_approvals_connection_id", "connection_id"),
    )

    connection_id: Mapped[UUID]
    subject: Mapped[ApprovalSubject] = state_column(
        ApprovalSubject, "subject", default=ApprovalSubject.PERMISSION_SET
    )
    permission_set: Mapped[Text64]
    # Version of the set of a move that the role already has; None: it does not have the set yet
    version: Mapped[int | None]
    reason: Mapped[Text200]
    asked_by: Mapped[Text16]  # the kind of actor
    asked_by_id: Mapped[Text64 | None]
    asked_at: Mapped[CreatedAt]
    decision: Mapped[ApprovalDecision | None] = state_column(ApprovalDecision, "decision")
    decided_by: Mapped[Text16 | None]
    decided_by_id: Mapped[Text64 | None]
    decided_at: Mapped[datetime | None]

    @property
    def waits(self) -> bool:
        return self.decision is None

    def decide(self, decision: ApprovalDecision, actor_kind: str, actor_id: str | None) -> None:
        """Store the decision and who took it. A decision is final: later ones have no effect."""
        if self.waits:
            self.decision, self.decided_at = decision, now()
            self.decided_by, self.decided_by_id = actor_kind, actor_id
