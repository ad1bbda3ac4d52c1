"""Deliveries on request (an example event, one event again, missed events), and their log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, case, func, insert, select, update
from sqlalchemy.orm import joinedload

from app.audit import actions
from app.audit.events import note_effect
from app.clock import now
from app.errors import ConflictError, ValidationFailedError
from app.identity import Maker, one_or_not_found
from app.limits import limits
from app.limits.counting_in_database import acquire_in
from app.settings.setting_types import Limit
from app.store.database import Database, Session
from app.store.keyset import Page, page
from app.store.models import (
    DeliveryStatus,
    EndpointStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from app.webhooks.endpoints import one_seen_by
from app.webhooks.events import (
    RECOVERABLE,
    RECOVERED_AT_ONCE,
    delivery_of,
    event_for_test,
    missed_by,
)

_TOGETHER = 200  # deliveries in one transaction
_BLIND: Any = {"synchronize_session": False}


@dataclass(eq=False)
class Redelivery:
    """The service that sends events on request, and lists deliveries."""

    _db: Database

    def deliveries(
        self, principal: Maker, endpoint_id: UUID, *, limit: int, after: UUID | None
    ) -> Page[WebhookDelivery]:
        """Return an endpoint's deliveries with their types, newest first. Raises NotFoundError."""
        with_type = joinedload(WebhookDelivery.event).load_only(WebhookEvent.type)
        query = select(WebhookDelivery).options(with_type).filter_by(endpoint_id=endpoint_id)
        with self._db.read() as db:
            one_seen_by(db, principal, endpoint_id)
            return page(db, query, WebhookDelivery.id, limit=limit, after=after)

    def test(self, principal: Maker, endpoint_id: UUID) -> UUID:
        """Send an example event to this endpoint alone, and return the event's id.

        Raises NotFoundError, ConflictError for a disabled endpoint, and RateLimitedError.
        """
        with self._db.write(principal) as db:
            endpoint = _to_repeat(db, principal, endpoint_id)
            event = event_for_test(endpoint)
            db.add(event)
            db.flush()
            _send(db, endpoint, [event])
            note_effect(db, endpoint.tenant_id, event.id)
            return event.id

    def redeliver(self, principal: Maker, endpoint_id: UUID, delivery_id: UUID) -> None:
        """Attempt a delivery again now, with a new series of attempts.

        Raises NotFoundError, ConflictError for a disabled endpoint, and RateLimitedError.
        """
        with self._db.write(principal) as db:
            endpoint = _to_repeat(db, principal, endpoint_id)
            query = select(WebhookEvent).join(
                WebhookDelivery, WebhookDelivery.event_id == WebhookEvent.id
            )
            own = query.where(
                WebhookDelivery.id == delivery_id, WebhookDelivery.endpoint_id == endpoint_id
            )
            _send(db, endpoint, [one_or_not_found(db, own)])
            note_effect(db, endpoint.tenant_id, endpoint.id)

    def recover(
        self, principal: Maker, endpoint_id: UUID, *, since: datetime, until: datetime | None = None
    ) -> int:
        """Send the events between these times that were not delivered. Return their number.

        Raises NotFoundError, RateLimitedError, ConflictError for a disabled endpoint, and
        ValidationFailedError if the times are too long ago, out of order, or have too many events.
        """
        if since < now() - RECOVERABLE:
            raise ValidationFailedError(since=f"Must be at most {RECOVERABLE.days} days ago.")
        if until is not None and until <= since:
            raise ValidationFailedError(until="Must be later than since.")
        with self._db.write(principal) as db:  # before the search, which costs most
            _to_repeat(db, principal, endpoint_id, limits.RECOVERIES)
        with self._db.read() as db:
            missed = missed_by(one_seen_by(db, principal, endpoint_id), since, until)
            events = db.execute(missed.limit(RECOVERED_AT_ONCE + 1)).all()
        if len(events) > RECOVERED_AT_ONCE:
            message = f"More than {RECOVERED_AT_ONCE:,} events; ask for a shorter time."
            raise ValidationFailedError(until=message)
        for start in range(0, len(events), _TOGETHER):
            with self._db.write(principal) as db:
                endpoint = one_seen_by(db, principal, endpoint_id, lock=True)
                _send(db, endpoint, events[start : start + _TOGETHER])
                if start + _TOGETHER >= len(events):  # a retry before this point starts again
                    actions.ENDPOINT_RECOVERED.record(
                        db,
                        principal.actor,
                        {"webhook_endpoint_id": str(endpoint.id), "events": len(events)},
                        endpoint.tenant_id,
                    )
                    note_effect(db, endpoint.tenant_id, endpoint.id)
        return len(events)

    def count_pending(self, principal: Maker, endpoint_id: UUID) -> int:
        """Return how many deliveries wait. Raises NotFoundError."""
        with self._db.read() as db:
            one_seen_by(db, principal, endpoint_id)
            pending = select(func.count()).where(
                WebhookDelivery.endpoint_id == endpoint_id,
                WebhookDelivery.status == DeliveryStatus.PENDING,
            )
            return db.scalars(pending).one()


def _to_repeat(
    db: Session, principal: Maker, endpoint_id: UUID, quota: Limit = limits.DELIVERIES_ASKED
) -> WebhookEndpoint:
    """Return the locked endpoint, and count one request for deliveries to it.

    Raises NotFoundError, ConflictError for a disabled endpoint, and RateLimitedError.
    """
    endpoint = one_seen_by(db, principal, endpoint_id, lock=True)
    if endpoint.status is not EndpointStatus.ENABLED:
        raise ConflictError("This endpoint is disabled; enable it first.")
    # Counted by tenant or key, because a key could create endpoint after endpoint
    acquire_in(db, quota, principal.lock_id or endpoint.id)
    return endpoint


def _send(
    db: Session, endpoint: WebhookEndpoint, events: Sequence[Row[UUID, UUID | None] | WebhookEvent]
) -> None:
    """Make deliveries of these events due now, with a new series of attempts."""
    ids = [event.id for event in events]
    again = update(WebhookDelivery).where(
        WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.event_id.in_(ids)
    )
    # A claimed delivery becomes due when its claim ends. Otherwise nobody would attempt it if the
    # process that claimed it is killed.
    claimed = WebhookDelivery.claimed_until > now()
    due_at = case((claimed, WebhookDelivery.claimed_until), else_=now())
    values = {"status": DeliveryStatus.PENDING, "tries": 0, "next_attempt_at": due_at}
    repeated = db.scalars(
        again.values(values).returning(WebhookDelivery.event_id), execution_options=_BLIND
    )
    missing = {event.id: event.tenant_id for event in events}
    for event_id in repeated:
        del missing[event_id]
    if missing:
        rows = [delivery_of(endpoint, *each) for each in missing.items()]
        db.execute(insert(WebhookDelivery), rows)
    # Not None: a failure after days without attempts must not disable the endpoint
    endpoint.probe_at, endpoint.due_at = endpoint.probe_at and min(endpoint.probe_at, now()), now()
