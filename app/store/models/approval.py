"""Requests that the vendor must approve."""

import enum
from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import (
    Base,
    CreatedAt,
    Identified,
    TenantOwned,
    Text16,
    Text64,
    Text200,
    same_tenant,
)


class ApprovalSubject(enum.StrEnum):
    PERMISSION_SET = "permission_set"


class ApprovalDecision(enum.StrEnum):
    """The decision on a request. Only the vendor can approve a request."""

    APPROVED = "approved"
    NOT_NEEDED = "not_needed"  # the permission set only reads, or the tenant declared the account
    WITHDRAWN = "withdrawn"


class Approval(Identified, TenantOwned, Base):
    """A request for a permission set of a connection, and the decision on the request.

    The vendor has to approve some requests. `Connection.approval` is the waiting request for the
    connection's own permission set. `Connection.move` is the request to move the role to another
    permission set, until the role has it or the request is withdrawn. All other rows are history.
    """

    __tablename__ = "approvals"
    __table_args__ = (
        same_tenant("connection_id", "connections", ondelete="CASCADE"),
        Index("ix_approvals_of_connection", "connection_id", "id"),
    )

    connection_id: Mapped[UUID]
    subject: Mapped[ApprovalSubject] = mapped_column(default=ApprovalSubject.PERMISSION_SET)
    permission_set: Mapped[Text64]
    # For a move: which version of the requested permission set the role has; None: it has none yet
    version: Mapped[int | None]
    reason: Mapped[Text200]
    asked_by: Mapped[Text16]  # the kind of actor
    asked_by_id: Mapped[Text64 | None]
    asked_at: Mapped[CreatedAt]
    decision: Mapped[ApprovalDecision | None]
    decided_by: Mapped[Text16 | None]
    decided_by_id: Mapped[Text64 | None]
    decided_at: Mapped[datetime | None]

    @property
    def waits(self) -> bool:
        return self.decision is None
