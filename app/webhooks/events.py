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
from app.audit.visibility import details_for_tenant
from app.clock import now
from app.ids import first_id_at, new_id
from app.store.database import Session
from app.store.models import (
    ApiKey,
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
# Maximums of one transaction, because other writers wait for it on SQLite
_EVENTS = 50
_DELIVERIES = 500

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
    bodies = _Bodies(db, events)
    deliveries: list[dict[str, Any]] = []
    for event in events:
        if len(deliveries) >= _DELIVERIES:
            break  # the rest of the events stay new
        own = [each for each in endpoints if each.tenant_id in {None, event.tenant_id}]
        if not own or event.id not in bodies.audit_events:  # or its audit event was deleted
            db.delete(event)
            continue
        event.body, event.tenant_body = bodies.of(event)
        deliveries += [
            delivery_of(endpoint, event.id, event.tenant_id)
            for endpoint in own
            if endpoint.status is EndpointStatus.ENABLED and event.type in types_of(endpoint)
        ]
    db.flush()
    if deliveries:
        db.execute(insert(WebhookDelivery), deliveries)
        _make_due(db, [delivery["endpoint_id"] for delivery in deliveries])


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


def _make_due(db: Session, endpoint_ids: list[Any]) -> None:
    due = update(WebhookEndpoint).where(WebhookEndpoint.id.in_(endpoint_ids))
    db.execute(due.values(due_at=now()))


class _Bodies:
    """Renders the bodies of some events. The constructor reads all that they need."""

    def __init__(self, db: Session, events: Sequence[WebhookEvent]) -> None:
        query = select(AuditEvent).where(AuditEvent.id.in_([event.id for event in events]))
        self.audit_events = {event.id: event for event in db.scalars(query)}
        key_ids = {
            UUID(event.actor_id)
            for event in self.audit_events.values()
            if event.actor_kind == "api_key" and event.actor_id
        }
        tenant_ids = {event.tenant_id for event in events}
        self._references = _by_id(db, Tenant.id, Tenant.reference, tenant_ids)
        self._tenants_of_keys = _by_id(db, ApiKey.id, ApiKey.tenant_id, key_ids)

    def of(self, event: WebhookEvent) -> tuple[str, str | None]:
        """Return the body for the vendor, and the body for the tenant if it differs."""
        audit_event = self.audit_events[event.id]
        data = {
            "event_id": event.id,
            "tenant_id": event.tenant_id,
            "tenant_reference": self._references.get(event.tenant_id),
            "connection_id": audit_event.connection_id,
            "outcome": audit_event.outcome,
            "details": audit_event.details,
        }
        body = _body(event.type, audit_event.at, data)
        details = details_for_tenant(audit_event, is_own_key=self._is_own_key(audit_event))
        tenant_body = _body(event.type, audit_event.at, data | {"details": details})
        return body, tenant_body if tenant_body != body else None

    def _is_own_key(self, event: AuditEvent) -> bool:
        if event.actor_kind != "api_key" or event.actor_id is None or event.tenant_id is None:
            return False
        return bool(self._tenants_of_keys.get(UUID(event.actor_id)) == event.tenant_id)


def _by_id(db: Session, key: Any, value: Any, ids: set[Any]) -> dict[Any, Any]:
    query = select(key, value).where(key.in_(ids - {None}))
    return dict(db.execute(query).all())


def _body(event_type: str, timestamp: datetime, data: dict[str, Any]) -> str:
    return orjson.dumps({"type": event_type, "timestamp": timestamp, "data": data}).decode()
