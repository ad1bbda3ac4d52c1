"""Attempt the claimed deliveries. app/webhooks/retries_and_disabling.py stores the outcomes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from app import VERSION, metrics
from app.clock import now
from app.concurrency.gevent import spawn
from app.config import Config
from app.log import logger
from app.outbound.addresses import DNS_SECONDS, AddressError, resolve
from app.outbound.door import AttemptError, HttpAnswer, post
from app.store.database import SYSTEM, Database
from app.store.models import WebhookEndpoint, WebhookEvent
from app.webhooks import events
from app.webhooks.claims import DeliveryClaim, claim
from app.webhooks.endpoint_secrets import Secrets
from app.webhooks.retries_and_disabling import Outcome, store
from app.webhooks.signing import signed_headers

THREADS = 32
_ATTEMPT_SECONDS = 15.0  # with the resolution of the name


@dataclass(frozen=True)
class Deliveries:
    """The service that attempts deliveries, for background workers."""

    _db: Database
    _config: Config
    _secrets: Secrets

    def advance(self, outcomes: Sequence[Outcome], free: int) -> list[DeliveryClaim]:
        """Create new events' deliveries, store these outcomes, and claim at most `free` deliveries.

        If it raises StoreUnavailableError, no outcome is stored, or this is unknown.
        """
        with self._db.read() as db:
            fresh = db.scalar(events.NEW.with_only_columns(WebhookEvent.id).limit(1))
            due = select(WebhookEndpoint.id).where(WebhookEndpoint.due_at <= now()).limit(1)
            is_due = free > 0 and db.scalar(due) is not None
        # A transaction of its own: it locks endpoints in the order of their ids, and `store` locks
        # others. With a single transaction, two background workers could deadlock.
        if fresh is not None:
            with self._db.write(SYSTEM) as db:
                events.spread(db)
        if not outcomes and not is_due and fresh is None:
            return []
        with self._db.write(SYSTEM) as db:
            if outcomes:
                store(db, outcomes)
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
        except AddressError:
            error = "address"
        except TimeoutError:  # the name was not resolved in time
            error = "timeout"
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
        about = claimed.endpoint_id.bytes
        opened = [self._secrets.open(sealed, about) for sealed in claimed.secrets]
        secrets = [secret for secret in opened if secret is not None]
        if not secrets:  # a receiver could not tell an unsigned event from a forgery
            raise AttemptError("secret")
        body = claimed.body.encode()
        headers = signed_headers(claimed.event_id, attempted_at, body, secrets)
        headers["content-type"] = "application/json"
        headers["user-agent"] = f"deputy/{VERSION}"  # without one, AWS WAF's core rules refuse it
        networks = self._config.service.webhook_allowed_networks if claimed.by_vendor else ()
        destination = spawn(resolve, claimed.url, networks).result(DNS_SECONDS)
        seconds = _ATTEMPT_SECONDS - (time.monotonic() - began)
        return post(destination, headers, body, max(1.0, seconds))
