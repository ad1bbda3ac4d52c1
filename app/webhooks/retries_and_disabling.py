"""Outcomes of attempts: when a failed one is retried, and when an endpoint waits or is disabled."""

import random
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import select

from app.audit import actions
from app.clock import now
from app.identity import WORKER
from app.log import logger
from app.outbound.door import HttpAnswer
from app.settings.valid_values import DAY
from app.store.database import Session
from app.store.models import (
    DeliveryStatus,
    DisabledBecause,
    EndpointStatus,
    WebhookDelivery,
    WebhookEndpoint,
)
from app.store.models.webhook import locked_endpoints
from app.webhooks.claims import DeliveryClaim

# Seconds from one attempt to the next, by the specification of Standard Webhooks
RETRIES = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, DAY)
_JITTER = 0.1  # maximum fraction by which a wait is longer or shorter
_RETRY_AFTER_MAX = DAY
_PROBE_SECONDS = 1800  # maximum between two attempts to a failing endpoint
# Most endpoints that are down are restarting. So for an hour they are probed more often.
_QUICK_PROBES = (5, 10, 20, 40, 60)  # seconds; the last one repeats
_QUICK_PROBES_FOR = timedelta(hours=1)  # from the first failure
_FAILING = timedelta(days=5)  # without a success, until an endpoint is disabled
_NOT_TRIED = timedelta(days=2)  # more than any wait between two attempts
_SLOW_MS = 1000
_ATTEMPTS = 20  # most attempts that a delivery's log keeps
_SHOWN = 1024  # bytes of an answer that the log keeps
_GONE = 410
# Without Retry-After it is no sign of being down: one tenant's events may use up what the endpoint
# accepts from all.
_BUSY = 429
_DOWN = (502, 503, 504)
_SECONDS = re.compile("[0-9]{1,9}")  # the form of Retry-After that is understood
_SUBJECTS = 8  # an endpoint that refuses events of more subjects counts as down


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


def _readable(answer: bytes) -> str:
    """Decode an answer without its control characters, which take six bytes each in JSON."""
    text = answer.decode(errors="replace")
    return "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)


def store(db: Session, outcomes: Sequence[Outcome]) -> None:
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
        elif delivery.status is DeliveryStatus.PENDING:
            _fail(endpoint, delivery, outcome)
        if outcome.claim.url != endpoint.url:
            continue  # the outcome says nothing about the new URL
        if outcome.is_success:
            endpoint.forget_failures()
            endpoint.last_success_at, endpoint.is_slow = outcome.at, outcome.ms > _SLOW_MS
        else:
            _note_failure(db, endpoint, outcome)


def _fail(endpoint: WebhookEndpoint, delivery: WebhookDelivery, outcome: Outcome) -> None:
    # A quick probe costs its event no try: it says something about the endpoint. The first failure
    # counts, because an event that the endpoint can't bear causes it again and again.
    is_probe = endpoint.failures > 0 and _is_probed_quickly(endpoint, outcome)
    delivery.tries += not is_probe
    if endpoint.status is not EndpointStatus.ENABLED or delivery.tries > len(RETRIES):
        delivery.status, delivery.next_attempt_at = DeliveryStatus.FAILED, None
    elif is_probe:  # `probe_at` delays it, and it comes after the others that wait
        delivery.next_attempt_at = now()
    else:
        delivery.next_attempt_at = _later(RETRIES[delivery.tries - 1], outcome.answer)


def _note_failure(db: Session, endpoint: WebhookEndpoint, outcome: Outcome) -> None:
    """Make the endpoint wait, and disable it if it has failed for too long."""
    if endpoint.status is not EndpointStatus.ENABLED:
        return
    if endpoint.probe_at is not None and endpoint.probe_at < outcome.at - _NOT_TRIED:
        endpoint.failing_since = None  # without attempts it was not failing all the time
    endpoint.failing_since = endpoint.failing_since or outcome.at
    endpoint.refused = _refused(endpoint, outcome)
    # Count concurrent attempts once. Otherwise four of them would make the wait half an hour.
    if endpoint.probe_at is None or outcome.at >= endpoint.probe_at:
        endpoint.failures += 1
        endpoint.probe_at = _later(_seconds_to_probe(endpoint, outcome), outcome.answer)
    long_ago = now() - _FAILING
    if outcome.answer is not None and outcome.answer.status == _GONE:
        _disable(db, endpoint, DisabledBecause.GONE)
    elif endpoint.failing_since < long_ago > (endpoint.last_success_at or endpoint.created_at):
        _disable(db, endpoint, DisabledBecause.FAILING)


def _seconds_to_probe(endpoint: WebhookEndpoint, outcome: Outcome) -> int:
    """Return how long a failing endpoint waits for its next attempt."""
    if _says_when(outcome):  # one tenant's events could otherwise make all wait ever longer
        return RETRIES[0]
    if _is_probed_quickly(endpoint, outcome):
        return _QUICK_PROBES[min(endpoint.failures, len(_QUICK_PROBES)) - 1]
    return min(RETRIES[min(endpoint.failures, len(RETRIES)) - 1], _PROBE_SECONDS)


def _is_probed_quickly(endpoint: WebhookEndpoint, outcome: Outcome) -> bool:
    """Return whether the endpoint is down, and has been failing for less than an hour."""
    since = endpoint.failing_since or outcome.at
    return _is_down(outcome) and outcome.at < since + _QUICK_PROBES_FOR


def _is_down(outcome: Outcome) -> bool:
    """Return whether the endpoint did not answer, or a proxy answered for it."""
    return outcome.answer is None or outcome.answer.status in _DOWN


def _refused(endpoint: WebhookEndpoint, outcome: Outcome) -> list[str] | None:
    """Return the subjects whose events the endpoint refused; None if it seems to be down.

    One tenant's events that the endpoint can't handle must not delay the events of the others.
    """
    if _is_down(outcome) or _says_when(outcome):
        return None
    refused = {*(endpoint.refused or ()), str(outcome.claim.subject)}
    return sorted(refused) if len(refused) <= _SUBJECTS else None


def _says_when(outcome: Outcome) -> bool:
    """Return whether the endpoint, which is busy or down, said for how long."""
    answer = outcome.answer
    return (
        answer is not None
        and answer.status in {_BUSY, *_DOWN}
        and _SECONDS.fullmatch(answer.headers.get("retry-after", "")) is not None
    )


def _disable(db: Session, endpoint: WebhookEndpoint, because: DisabledBecause) -> None:
    was = endpoint.status
    endpoint.disable(because)
    logger.warning("webhook_endpoint.disabled", endpoint_id=str(endpoint.id), because=because)
    actions.ENDPOINT_DISABLED.record(
        db,
        WORKER,
        {
            "webhook_endpoint_id": str(endpoint.id),
            "was": was,
            "endpoint_status": endpoint.status,
            "because": because,
        },
        endpoint.tenant_id,
    )


def _later(seconds: float, answer: HttpAnswer | None) -> datetime:
    """Return the time of the next attempt: after `seconds`, or after the answer's Retry-After."""
    text = answer.headers.get("retry-after", "") if answer else ""
    seconds *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  no secret
    if _SECONDS.fullmatch(text):
        seconds = max(seconds, min(int(text), _RETRY_AFTER_MAX))
    return now() + timedelta(seconds=seconds)
