"""The events that webhooks send, their bodies, and the deliveries that are made of them.

A change and its row in `webhook_events` are committed together. So nothing is sent that did not
happen, and nothing that happened is forgotten.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Select, exists, insert, or_, select, update

from app.audit.actions import WEBHOOK_TYPES
from app.audit.visibility import by_own_keys, details_for_tenant
from app.clock import now
from app.ids import first_id_at, new_id
from app.store.database import Session
from app.store.models import (
    AuditEvent,
    DeliveryStatus,
    EndpointStatus,
    Tenant,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from app.store.models.webhook import NOBODY, locked_endpoints

BODY_BYTES = 20_000  # maximum of a body; a test compares the largest details with it
TEST_TYPE = "webhook_endpoint.test"
# Maximums of one transaction
_EVENTS = 50
_DELIVERIES = 500

RECOVERABLE = timedelta(days=30)  # maximum age of an event that is sent again
RECOVERED_AT_ONCE = 10_000  # most events that a request sends again

NEW = select(WebhookEvent).where(WebhookEvent.body.is_(None)).order_by(WebhookEvent.id)


def types_of(endpoint: WebhookEndpoint) -> Iterable[str]:
    """Return the types of events that the endpoint gets."""
    return WEBHOOK_TYPES if endpoint.types == ["*"] else endpoint.types


def missed_by(
    endpoint: WebhookEndpoint, since: datetime, until: datetime | None
) -> Select[UUID, UUID | None]:
    """Select the events between these times that are for the endpoint but were not delivered."""
    delivered = exists().where(
        WebhookDelivery.event_id == WebhookEvent.id,
        WebhookDelivery.endpoint_id == endpoint.id,
        WebhookDelivery.status == DeliveryStatus.DELIVERED,
    )
    missed = select(WebhookEvent.id, WebhookEvent.tenant_id).where(
        WebhookEvent.id >= first_id_at(since),
        WebhookEvent.id < first_id_at(until or now() + timedelta(minutes=1)),
        WebhookEvent.body.is_not(None),
        WebhookEvent.type.in_(types_of(endpoint)),
        ~delivered,
    )
    if endpoint.tenant_id is not None:
        missed = missed.where(WebhookEvent.tenant_id == endpoint.tenant_id)
    return missed.order_by(WebhookEvent.id)


def spread(db: Session) -> None:
    """Store the bodies of the oldest new events, and make their deliveries.

    Events for which there is no endpoint are deleted.
    """
    events = db.scalars(NEW.limit(_EVENTS).with_for_update(skip_locked=True)).all()
    if not events:
        return
    endpoints = _endpoints_for(db, {event.tenant_id for event in events} - {None})
    query = select(AuditEvent, Tenant.reference).outerjoin(
        Tenant, Tenant.id == AuditEvent.tenant_id
    )
    rows = db.execute(query.where(AuditEvent.id.in_([event.id for event in events]))).all()
    audit_events = {audit_event.id: (audit_event, reference) for audit_event, reference in rows}
    by_own = by_own_keys(db, [audit_event for audit_event, _ in rows])
    deliveries: list[dict[str, Any]] = []
    for event in events:
        if len(deliveries) >= _DELIVERIES:
            break  # the rest of the events stay new
        own = [each for each in endpoints if each.tenant_id in {None, event.tenant_id}]
        if not own or event.id not in audit_events:  # or its audit event was deleted
            db.delete(event)
            continue
        event.body, event.tenant_body = _bodies(
            *audit_events[event.id], is_own_key=event.id in by_own
        )
        deliveries += [
            delivery_of(endpoint, event.id, event.tenant_id)
            for endpoint in own
            if endpoint.status is EndpointStatus.ENABLED and event.type in types_of(endpoint)
        ]
    db.flush()
    if deliveries:
        db.execute(insert(WebhookDelivery), deliveries)
        due = [delivery["endpoint_id"] for delivery in deliveries]
        db.execute(update(WebhookEndpoint).where(WebhookEndpoint.id.in_(due)).values(due_at=now()))


def delivery_of(
    endpoint: WebhookEndpoint, event_id: UUID, tenant_id: UUID | None
) -> dict[str, Any]:
    """Return the values of a delivery that is due now."""
    return {
        "endpoint_id": endpoint.id,
        "event_id": event_id,
        "subject": tenant_id or NOBODY,
        "next_attempt_at": now(),
    }


def event_for_test(endpoint: WebhookEndpoint) -> WebhookEvent:
    """Return an example event, which is no audit event."""
    event_id, created_at = new_id(), now()
    body = _body(TEST_TYPE, created_at, {"event_id": event_id, "webhook_endpoint_id": endpoint.id})
    return WebhookEvent(
        id=event_id, type=TEST_TYPE, tenant_id=endpoint.tenant_id, created_at=created_at, body=body
    )


def _endpoints_for(db: Session, tenant_ids: set[Any]) -> Sequence[WebhookEndpoint]:
    """Return the endpoints of the vendor and of these tenants, locked."""
    of_these = or_(WebhookEndpoint.tenant_id.is_(None), WebhookEndpoint.tenant_id.in_(tenant_ids))
    live = WebhookEndpoint.status != EndpointStatus.DELETED
    return db.scalars(locked_endpoints(of_these, live)).all()


def _bodies(
    event: AuditEvent, reference: str | None, *, is_own_key: bool
) -> tuple[str, str | None]:
    """Return the body for the vendor, and the body for the tenant if it differs."""
    data = {
        "event_id": event.id,
        "tenant_id": event.tenant_id,
        "tenant_reference": reference,
        "connection_id": event.connection_id,
        "outcome": event.outcome,
        "details": event.details,
    }
    body = _body(event.action, event.at, data)
    details = details_for_tenant(event, is_own_key=is_own_key)
    tenant_body = _body(event.action, event.at, data | {"details": details})
    return body, tenant_body if tenant_body != body else None


def _body(event_type: str, timestamp: datetime, data: dict[str, Any]) -> str:
    return orjson.dumps({"type": event_type, "timestamp": timestamp, "data": data}).decode()
