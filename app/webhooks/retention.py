"""The housekeeping of webhooks: rows that are over, and secrets under a key that is replaced."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, exists, select

from app.health.checks import HealthFinding, failed, ok, warning
from app.store.database import SYSTEM, Database
from app.store.models import (
    DeliveryStatus,
    DisabledBecause,
    EndpointStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from app.webhooks.signing import Secrets

DELIVERIES_KEPT = timedelta(days=30)
# An event may be delivered again on its last day (`recover`), and so be kept as long again
EVENTS_KEPT = 2 * DELIVERIES_KEPT + timedelta(days=1)
HAS_ENDED = WebhookDelivery.status != DeliveryStatus.PENDING  # one may be asked for again
HAS_NO_DELIVERY = ~exists().where(WebhookDelivery.event_id == WebhookEvent.id)


def delete_ended(db: Database) -> None:
    """Delete the endpoints that are deleted and have no deliveries any more."""
    has_deliveries = exists().where(WebhookDelivery.endpoint_id == WebhookEndpoint.id)
    ended = WebhookEndpoint.status == EndpointStatus.DELETED, ~has_deliveries
    with db.read() as session:
        if session.scalar(select(WebhookEndpoint.id).where(*ended).limit(1)) is None:
            return  # without taking SQLite's only write lock
    with db.write(SYSTEM) as session:
        session.execute(
            delete(WebhookEndpoint).where(*ended), execution_options={"synchronize_session": False}
        )


def seal_again(db: Database, secrets: Secrets) -> None:
    """Seal the secrets again that are not sealed under the first of SECRET_KEYS."""
    for endpoint_id in [each.id for each in _live(db) if _is_old(each, secrets)]:
        with db.write(SYSTEM) as session:
            endpoint = session.get(WebhookEndpoint, endpoint_id, with_for_update=True)
            if endpoint is None or endpoint.status == EndpointStatus.DELETED:
                continue
            endpoint.secret = secrets.sealed_again(endpoint.id, endpoint.secret)
            if endpoint.old_secret is not None:
                endpoint.old_secret = secrets.sealed_again(endpoint.id, endpoint.old_secret)


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
    """Return the ids of the vendor's endpoints that were disabled without a request for it."""
    query = select(WebhookEndpoint.id).where(
        WebhookEndpoint.tenant_id.is_(None),
        WebhookEndpoint.status == EndpointStatus.DISABLED,
        WebhookEndpoint.disabled_because != DisabledBecause.ASKED,
    )
    with db.read() as session:
        return session.scalars(query.order_by(WebhookEndpoint.id)).all()


def check_secrets(db: Database, secrets: Secrets) -> HealthFinding:
    """Find the secrets that none of SECRET_KEYS opens. It reads all endpoints."""
    endpoints = _live(db)
    closed = [each for each in endpoints if secrets.open(each.id, each.secret) is None]
    if closed:
        return failed(
            f"{len(closed)} webhook endpoints have a secret that none of DEPUTY_SECRET_KEYS opens.",
            "Put the key back that DEPUTY_SECRET_KEYS lacks, or give the endpoints new secrets.",
        )
    return ok(f"The secrets of {len(endpoints)} webhook endpoints can be opened.")


def _live(db: Database) -> list[WebhookEndpoint]:
    live = WebhookEndpoint.status != EndpointStatus.DELETED
    with db.read(long=True) as session:
        return list(session.scalars(select(WebhookEndpoint).where(live)))


def _is_old(endpoint: WebhookEndpoint, secrets: Secrets) -> bool:
    sealed = filter(None, (endpoint.secret, endpoint.old_secret))
    return not all(map(secrets.is_current, sealed))
