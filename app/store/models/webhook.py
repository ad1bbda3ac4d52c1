"""The tables of webhooks: endpoints, the events that are sent to them, and the deliveries.

A row of `webhook_events` is added in the transaction of its audit event. A background worker then
adds a delivery for each endpoint that the event is for.
"""

import enum
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Index,
    Select,
    String,
    Text,
    UniqueConstraint,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.clock import now
from app.store.models.base import Base, CreatedAt, Identified, Text16, Text64, Text200

NOBODY = UUID(int=0)  # the subject of events that are about no tenant


class EndpointStatus(enum.StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"  # the row is deleted after its last delivery (app/webhooks/retention.py)


class DisabledBecause(enum.StrEnum):
    """Why an endpoint is disabled."""

    ASKED = "asked"  # a request or the operator asked for it
    FAILING = "failing"  # attempts failed for five days
    GONE = "gone"  # it answered 410
    REVOKED = "revoked"  # the key that set its URL or its secret was revoked


class DeliveryStatus(enum.StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookEndpoint(Identified, Base):
    """A URL of the vendor's product, or of a tenant, to which events are sent.

    The row is also the queue of its deliveries: background workers look for rows whose `due_at` has
    passed, and then for the deliveries of these rows.
    """

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        Index("ix_webhook_endpoints_tenant", "tenant_id", "id"),
        Index("ix_webhook_endpoints_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )

    # The tenant whose events it gets; None: the vendor's endpoint, which gets all events
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenants.id"))
    url: Mapped[str] = mapped_column(String(2048))
    types: Mapped[list[Any]]  # event types; ["*"]: all
    description: Mapped[Text200 | None]
    status: Mapped[EndpointStatus] = mapped_column(default=EndpointStatus.ENABLED)
    disabled_at: Mapped[datetime | None]
    disabled_because: Mapped[Text16 | None]  # a `DisabledBecause`
    secret: Mapped[bytes]  # sealed (app/webhooks/signing.py)
    old_secret: Mapped[bytes | None]  # sealed; signs too until `old_secret_ends_at`
    old_secret_ends_at: Mapped[datetime | None]
    # The keys that set its URL and its secrets; None: the operator. Whoever stole such a key may
    # read or sign events. So when the key is revoked, the endpoint is disabled, or the old secret
    # is dropped.
    url_by: Mapped[UUID | None] = mapped_column(index=True)
    secret_by: Mapped[UUID | None] = mapped_column(index=True)
    old_secret_by: Mapped[UUID | None]
    # Whether the vendor made it, and no bound key has changed it. Only then it may be in
    # WEBHOOK_ALLOWED_NETWORKS.
    by_vendor: Mapped[bool]
    created_at: Mapped[CreatedAt]
    # When its next deliveries are to be attempted; None: there are none
    due_at: Mapped[datetime | None]
    turn: Mapped[UUID] = mapped_column(default=NOBODY)  # the last subject whose event was attempted
    failures: Mapped[int] = mapped_column(default=0)  # failed attempts since the last success
    failing_since: Mapped[datetime | None]
    # `probe_at`: while it fails, the time of the next attempt. `refused`: the subjects whose events
    # it refused; events of other subjects need not wait for that time. None: all events wait.
    probe_at: Mapped[datetime | None]
    refused: Mapped[list[Any] | None]
    last_success_at: Mapped[datetime | None]
    # Whether its last attempt took long. A new endpoint counts as slow until it answers.
    is_slow: Mapped[bool] = mapped_column(default=True)

    def disable(self, because: DisabledBecause) -> None:
        """Stop sending events to the endpoint. A background worker fails its pending deliveries."""
        self.status, self.due_at = EndpointStatus.DISABLED, now()
        self.disabled_at, self.disabled_because = now(), because

    def end(self) -> None:
        """Delete the endpoint and its secrets. The row stays until its deliveries have failed."""
        self.disable(DisabledBecause.ASKED)
        self.status = EndpointStatus.DELETED
        self.secret, self.old_secret = b"", None

    def forget_failures(self) -> None:
        self.failures, self.failing_since, self.probe_at, self.refused = 0, None, None, None


def locked_endpoints(*conditions: ColumnElement[bool]) -> Select[WebhookEndpoint]:
    """Select the endpoints for which all conditions are true, and lock their rows.

    Every transaction locks them in the order of their ids. Otherwise two transactions could
    deadlock.
    """
    query = select(WebhookEndpoint).where(*conditions).order_by(WebhookEndpoint.id)
    return query.with_for_update(key_share=True)


class WebhookEvent(Base):
    """An event to send, and its body. While `body` is None, its deliveries are not added yet."""

    __tablename__ = "webhook_events"
    __table_args__ = (
        Index("ix_webhook_events_new", "id", postgresql_where=text("body IS NULL")),
        Index("ix_webhook_events_tenant", "tenant_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)  # the audit event's id
    type: Mapped[Text64]
    tenant_id: Mapped[UUID | None]
    created_at: Mapped[datetime]
    body: Mapped[str | None] = mapped_column(Text)
    # The body for the tenant's own endpoints, if it differs
    tenant_body: Mapped[str | None] = mapped_column(Text)


class WebhookDelivery(Identified, Base):
    """The attempts to send one event to one endpoint."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id"),
        Index(
            "ix_webhook_deliveries_turn",
            "endpoint_id",
            "subject",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "ix_webhook_deliveries_next",
            "endpoint_id",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "ix_webhook_deliveries_claimed",
            "claimed_until",
            postgresql_where=text("claimed_until IS NOT NULL"),
        ),
        Index("ix_webhook_deliveries_endpoint", "endpoint_id", "id"),
    )

    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_endpoints.id"))
    event_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_events.id"), index=True)
    # The event's tenant, or NOBODY. Subjects take turns, so that no tenant delays another's events.
    subject: Mapped[UUID]
    status: Mapped[DeliveryStatus] = mapped_column(default=DeliveryStatus.PENDING)
    tries: Mapped[int] = mapped_column(default=0)  # attempts in the current series
    # The last attempts: objects with `at`, `status_code`, `ms`, `error` and `answer`
    attempts: Mapped[list[Any]] = mapped_column(default=list)
    next_attempt_at: Mapped[datetime | None]
    # While this is in the future, a background worker has the delivery
    claimed_until: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    event: Mapped[WebhookEvent] = relationship(lazy="raise", viewonly=True)
