"""The table of audit events, with the indexes that its searches use."""

from typing import Any
from uuid import UUID

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Base, CreatedAt, Identified, Text16, Text64, Text128, Text200

ISSUED = "credentials.issued"  # the action of nearly all audit events
# The condition of a partial index. The database uses the index only for queries that contain the
# same text, so the action can't be a parameter.
NOT_ISSUED = text(f"action <> '{ISSUED}'")
# This is the same condition, written differently, for the partial indexes by tenant and by
# connection. With the same text, the planner could use the index by action for a query by tenant.
NOT_ISSUED_TO = text(f"(action < '{ISSUED}' OR action > '{ISSUED}')")


class AuditEvent(Identified, Base):
    """An audit event: who did what, when, to which connection, and with what outcome.

    A trigger refuses to change or delete an event. There are no foreign keys, because an event
    outlives the rows that it names.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_tenant", "tenant_id", "id"),
        Index("ix_audit_events_connection", "connection_id", "id"),
        # These three leave out issuances, for which the indexes above suffice. So storing an
        # issuance does not write into them.
        Index("ix_audit_events_action", "action", "id", postgresql_where=NOT_ISSUED),
        Index(
            "ix_audit_events_tenant_action",
            "tenant_id",
            "action",
            "id",
            postgresql_where=NOT_ISSUED_TO,
        ),
        Index(
            "ix_audit_events_connection_action",
            "connection_id",
            "action",
            "id",
            postgresql_where=NOT_ISSUED_TO,
        ),
        Index(
            "ix_audit_events_access_key",
            "access_key_id",
            "id",
            postgresql_where=text("access_key_id IS NOT NULL"),
        ),
        {"postgresql_partition_by": "RANGE (id)"},  # app/audit/months.py
    )

    at: Mapped[CreatedAt]
    action: Mapped[Text64]  # noun.verb
    outcome: Mapped[str] = mapped_column(String(8))  # ok, refused, failed
    # api_key, onboarding_link, operator, worker, registration
    actor_kind: Mapped[Text16]
    actor_id: Mapped[Text64 | None]
    actor_name: Mapped[Text200]
    tenant_id: Mapped[UUID | None]
    connection_id: Mapped[UUID | None]
    request_id: Mapped[Text64 | None]
    client_address: Mapped[str | None] = mapped_column(String(45))
    details: Mapped[dict[str, Any]]
    # A web process sets this column in its first event about a session, and leaves it None in later
    # ones. So a cache hit does not write into the index of this column.
    access_key_id: Mapped[Text128 | None]
