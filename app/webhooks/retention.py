"""The retention of webhooks' rows, and the endpoints that were disabled."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Select, delete, exists, select

from app.clock import now
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

# Readiness tells of an endpoint that fails for so long, and of an event that it lost lately
_LONG, _REMEMBERED = timedelta(hours=1), timedelta(days=7)
DELIVERIES_KEPT = timedelta(days=30)
# `recover` may send an event on its last day, and the new delivery is kept for DELIVERIES_KEPT too
EVENTS_KEPT = 2 * DELIVERIES_KEPT + timedelta(days=1)
HAS_ENDED = WebhookDelivery.status != DeliveryStatus.PENDING  # a redelivery is pending again
HAS_NO_DELIVERY = ~exists().where(WebhookDelivery.event_id == WebhookEvent.id)


def delete_ended(database: Database) -> None:
    """Delete the rows of deleted endpoints that have no deliveries any more."""
    has_deliveries = exists().where(WebhookDelivery.endpoint_id == WebhookEndpoint.id)
    ended = WebhookEndpoint.status == EndpointStatus.DELETED, ~has_deliveries
    with database.write(SYSTEM) as db:
        db.execute(
            delete(WebhookEndpoint).where(*ended), execution_options={"synchronize_session": False}
        )


def finding(database: Database) -> HealthFinding:
    """Return whether some of the vendor's endpoints get nothing: disabled, or failing for long."""
    if ids := stopped(database):
        names = ", ".join(map(str, ids[:5]))
        return warning(
            f"{len(ids)} of your webhook endpoints were disabled, and get nothing: {names}.",
            "Look at: flask --app wsgi webhooks list. Enable them, or delete them. If a key was"
            " revoked (`revoked`), only the API can give the endpoint a new secret and url.",
        )
    undelivered = exists().where(
        WebhookDelivery.endpoint_id == WebhookEndpoint.id,
        WebhookDelivery.status != DeliveryStatus.DELIVERED,
        WebhookDelivery.created_at > now() - _REMEMBERED,
    )
    failing = _of_vendor(EndpointStatus.ENABLED).where(
        WebhookEndpoint.failing_since < now() - _LONG, undelivered
    )
    with database.read() as db:
        ids = db.scalars(failing).all()
    if ids:
        return warning(
            f"{len(ids)} of your webhook endpoints have been failing for more than an hour:"
            f" {', '.join(map(str, ids[:5]))}. After five days they are disabled.",
            "Look at: flask --app wsgi webhooks list. The endpoint's deliveries say why.",
        )
    return ok("All your webhook endpoints get their events.")


def stopped(database: Database) -> Sequence[UUID]:
    """Return the ids of the vendor's endpoints that were disabled, but not on request."""
    query = _of_vendor(EndpointStatus.DISABLED)
    with database.read() as db:
        return db.scalars(
            query.where(WebhookEndpoint.disabled_because != DisabledBecause.ASKED)
        ).all()


def _of_vendor(status: EndpointStatus) -> Select[UUID]:
    of_vendor = select(WebhookEndpoint.id).filter_by(tenant_id=None, status=status)
    return of_vendor.order_by(WebhookEndpoint.id)
