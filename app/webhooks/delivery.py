"""Deliveries: attempt those that are claimed, and store the outcomes."""

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import func, select

from app import metrics
from app.audit import WORKER, actions
from app.clock import now
from app.concurrency.gevent import spawn
from app.config import Config
from app.log import logger
from app.outbound.addresses import DNS_SECONDS, AddressError, resolve
from app.outbound.door import ATTEMPT_SECONDS, AttemptError, HttpAnswer, post
from app.store.database import SYSTEM, Database, Session
from app.store.models import (
    DeliveryStatus,
    DisabledBecause,
    EndpointStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from app.store.models.webhook import locked_endpoints
from app.webhooks import events
from app.webhooks.claims import DeliveryClaim, claim
from app.webhooks.endpoints import disable
from app.webhooks.signing import Secrets, signed_headers

THREADS = 32
# Seconds from one attempt to the next, by the specification of Standard Webhooks
RETRIES = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
_JITTER = 0.1  # a wait is up to this part longer or shorter
_RETRY_AFTER_MAX = 86_400
_PROBE_SECONDS = 1800  # maximum from one attempt to a failing endpoint to the next
_FAILING = timedelta(days=5)  # without a success, until an endpoint is disabled
_SLOW_MS = 1000
_ATTEMPTS = 20  # most attempts that a delivery's log keeps
_SHOWN = 1024  # bytes of an answer that the log keeps
_GONE = 410
_DOWN = (429, 502, 503, 504)
_SUBJECTS = 8  # whose events are refused until an endpoint counts as down


class Outcome(NamedTuple):
    """The outcome of an attempt. `error`: one word, or None if there was an answer."""

    claim: DeliveryClaim
    at: datetime
    ms: int
    answer: HttpAnswer | None = None
    error: str | None = None

    @property
    def is_success(self) -> bool:
        return self.answer is not None and 200 <= self.answer.status < 300

    def row(self) -> dict[str, Any]:
        """Return the attempt as the delivery's log keeps it."""
        return {
            "at": self.at.isoformat(),
            "status_code": self.answer and self.answer.status,
            "ms": self.ms,
            "error": self.error,
            "answer": self.answer and _readable(self.answer.body[:_SHOWN]),
        }


@dataclass(frozen=True)
class Deliveries:
    """The service that attempts deliveries, for background workers."""

    _db: Database
    _config: Config
    _secrets: Secrets

    def advance(self, outcomes: Sequence[Outcome], free: int) -> list[DeliveryClaim]:
        """Make new events' deliveries, store these outcomes, and claim at most `free`.

        Raises StoreUnavailableError; no outcome is stored then.
        """
        with self._db.read() as db:  # without taking SQLite's only write lock
            fresh = db.scalar(events.NEW.with_only_columns(WebhookEvent.id).limit(1))
            due = select(WebhookEndpoint.id).where(WebhookEndpoint.due_at <= now()).limit(1)
            is_due = db.scalar(due) is not None
        # In two transactions, because each locks some endpoints in the order of their ids. In one,
        # two background workers would wait for each other.
        if fresh is not None:
            with self._db.write(SYSTEM) as db:
                events.spread(db)
        if not outcomes and not is_due and fresh is None:
            return []
        with self._db.write(SYSTEM) as db:
            if outcomes:
                _store(db, outcomes)
            return claim(db, free)

    def oldest_due(self) -> datetime | None:
        """Return the earliest `due_at` of the vendor's endpoints, which may be in the future."""
        due = select(func.min(WebhookEndpoint.due_at)).where(WebhookEndpoint.tenant_id.is_(None))
        with self._db.read() as db:
            return db.scalar(due)

    def attempt(self, claimed: DeliveryClaim) -> Outcome:
        """Send the event to the endpoint once, and return the outcome."""
        attempted_at, began = now(), time.monotonic()
        answer, error = None, None
        try:
            answer = self._post(claimed, attempted_at)
        except (AddressError, TimeoutError):
            error = "address"
        except AttemptError as failure:
            error = str(failure)
        except Exception as bug:  # noqa: BLE001  it must not stop the other deliveries
            logger.error("webhook.attempt_failed", exc_info=bug)
            error = "internal"
        outcome = Outcome(
            claimed, attempted_at, round((time.monotonic() - began) * 1000), answer, error
        )
        metrics.WEBHOOK_ATTEMPTS.labels("delivered" if outcome.is_success else "failed").inc()
        return outcome

    def _post(self, claimed: DeliveryClaim, attempted_at: datetime) -> HttpAnswer:
        """Sign and send the event. Raises AddressError, TimeoutError and AttemptError."""
        began = time.monotonic()
        opened = [self._secrets.open(claimed.endpoint_id, sealed) for sealed in claimed.secrets]
        secrets = [secret for secret in opened if secret is not None]
        if not secrets:  # a receiver could not tell the event from anybody else's
            raise AttemptError("secret")
        body = claimed.body.encode()
        headers = signed_headers(claimed.event_id, attempted_at, body, secrets)
        headers["content-type"] = "application/json"
        networks = self._config.service.webhook_allowed_networks if claimed.by_vendor else ()
        destination = spawn(resolve, claimed.url, networks).result(DNS_SECONDS)
        seconds = ATTEMPT_SECONDS - (time.monotonic() - began)
        return post(destination, headers, body, max(1.0, seconds))


def _readable(answer: bytes) -> str:
    """Return the text without control characters, which JSON would write with six bytes each."""
    text = answer.decode(errors="replace")
    return "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)


def _store(db: Session, outcomes: Sequence[Outcome]) -> None:
    endpoint_ids = {outcome.claim.endpoint_id for outcome in outcomes}
    locked = db.scalars(locked_endpoints(WebhookEndpoint.id.in_(endpoint_ids)))
    endpoints = {endpoint.id: endpoint for endpoint in locked}
    ids = [outcome.claim.delivery_id for outcome in outcomes]
    rows = db.scalars(select(WebhookDelivery).where(WebhookDelivery.id.in_(ids)))
    deliveries = {delivery.id: delivery for delivery in rows}
    for outcome in outcomes:
        endpoint = endpoints.get(outcome.claim.endpoint_id)
        delivery = deliveries.get(outcome.claim.delivery_id)
        if endpoint is None or delivery is None:  # housekeeping deleted them meanwhile
            continue
        delivery.claimed_until = None
        earlier = [attempt | {"answer": None} for attempt in delivery.attempts[1 - _ATTEMPTS :]]
        delivery.attempts = [*earlier, outcome.row()]
        endpoint.due_at = now()
        if outcome.is_success:
            delivery.status, delivery.next_attempt_at = DeliveryStatus.DELIVERED, None
        elif delivery.status is not DeliveryStatus.DELIVERED:
            _fail(endpoint, delivery, outcome)
        if outcome.claim.url != endpoint.url:
            continue  # it was changed meanwhile, and the outcome says nothing about the new one
        if outcome.is_success:
            endpoint.forget_failures()
            endpoint.last_success_at, endpoint.is_slow = outcome.at, outcome.ms > _SLOW_MS
        else:
            _note_failure(db, endpoint, outcome)


def _fail(endpoint: WebhookEndpoint, delivery: WebhookDelivery, outcome: Outcome) -> None:
    delivery.tries += 1
    if endpoint.status is not EndpointStatus.ENABLED or delivery.tries > len(RETRIES):
        delivery.status, delivery.next_attempt_at = DeliveryStatus.FAILED, None
    else:
        delivery.next_attempt_at = _later(RETRIES[delivery.tries - 1], outcome.answer)


def _note_failure(db: Session, endpoint: WebhookEndpoint, outcome: Outcome) -> None:
    """Make the endpoint wait, and disable it if it has failed for too long."""
    if endpoint.status is not EndpointStatus.ENABLED:
        return
    endpoint.failing_since = endpoint.failing_since or outcome.at
    endpoint.refused = _refused(endpoint, outcome)
    # Attempts that began before the wait count once: four at a time would make it half an hour
    if endpoint.probe_at is None or outcome.at >= endpoint.probe_at:
        endpoint.failures += 1
        seconds = min(RETRIES[min(endpoint.failures, len(RETRIES)) - 1], _PROBE_SECONDS)
        endpoint.probe_at = _later(seconds, outcome.answer)
    long_ago = now() - _FAILING
    if outcome.answer is not None and outcome.answer.status == _GONE:
        _disable(db, endpoint, DisabledBecause.GONE)
    elif endpoint.failing_since < long_ago > (endpoint.last_success_at or endpoint.created_at):
        _disable(db, endpoint, DisabledBecause.FAILING)


def _refused(endpoint: WebhookEndpoint, outcome: Outcome) -> list[str] | None:
    """Return the subjects whose events the endpoint refused; None if it seems to be down.

    One tenant's events that the endpoint can't handle must not delay the events of the others.
    """
    if outcome.answer is None or outcome.answer.status in _DOWN:
        return None
    refused = {*(endpoint.refused or ()), str(outcome.claim.subject)}
    return sorted(refused) if len(refused) <= _SUBJECTS else None


def _disable(db: Session, endpoint: WebhookEndpoint, because: DisabledBecause) -> None:
    disable(endpoint, because)
    logger.warning("webhook_endpoint.disabled", endpoint_id=str(endpoint.id), because=because)
    actions.ENDPOINT_DISABLED.record(
        db,
        WORKER,
        {"webhook_endpoint_id": str(endpoint.id), "because": because},
        endpoint.tenant_id,
    )


def _later(seconds: float, answer: HttpAnswer | None) -> datetime:
    """Return the time of the next attempt: after `seconds`, or after the answer's Retry-After."""
    text = answer.headers.get("retry-after", "") if answer else ""
    seconds *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  no secret
    if re.fullmatch("[0-9]{1,9}", text):
        seconds = max(seconds, min(int(text), _RETRY_AFTER_MAX))
    return now() + timedelta(seconds=seconds)
