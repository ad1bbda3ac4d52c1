"""The retention of webhooks' rows, and the endpoints that were disabled."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, exists, select

from app.health.checks import HealthFinding, ok, warning
from app.store.database import SYSTEM, Database
from app.store.models import (
    DeliveryStatus,
    DisabledBecause,
    EndpointStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)

DELIVERIES_KEPT = timedelta(days=30)
# `recover` may send an event on its last day, and the new delivery is kept for DELIVERIES_KEPT too
EVENTS_KEPT = 2 * DELIVERIES_KEPT + timedelta(days=1)
HAS_ENDED = WebhookDelivery.status != DeliveryStatus.PENDING  # a redelivery is pending again
HAS_NO_DELIVERY = ~exists().where(WebhookDelivery.event_id == WebhookEvent.id)


def delete_ended(db: Database) -> None:
    """Delete the rows of deleted endpoints that have no deliveries any more."""
    has_deliveries = exists().where(WebhookDelivery.endpoint_id == WebhookEndpoint.id)
    ended = WebhookEndpoint.status == EndpointStatus.DELETED, ~has_deliveries
    with db.read() as session:
        if session.scalar(select(WebhookEndpoint.id).where(*ended).limit(1)) is None:
            return  # without taking SQLite's only write lock
    with db.write(SYSTEM) as session:
        session.execute(
            delete(WebhookEndpoint).where(*ended), execution_options={"synchronize_session": False}
        )


def finding(db: Database) -> HealthFinding:
    """Return whether Deputy disabled some of the vendor's endpoints."""
    if ids := stopped(db):
        names = ", ".join(map(str, ids[:5]))
        return warning(
            f"{len(ids)} of your webhook endpoints were disabled, and get nothing: {names}.",
            "Look at: flask --app wsgi webhooks list. Enable them, or delete them.",
        )
    return ok("No webhook endpoint of yours was disabled.")


def stopped(db: Database) -> Sequence[UUID]:
    """Return the ids of the vendor's endpoints that were disabled, but not on request."""
    query = select(WebhookEndpoint.id).where(
        WebhookEndpoint.tenant_id.is_(None),
        WebhookEndpoint.status == EndpointStatus.DISABLED,
        WebhookEndpoint.disabled_because != DisabledBecause.ASKED,
    )
    with db.read() as session:
        return session.scalars(query.order_by(WebhookEndpoint.id)).all()
