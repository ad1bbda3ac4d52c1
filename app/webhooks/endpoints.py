"""Webhook endpoints: URLs of the vendor's product, or of a tenant, to which events are sent.

An unbound key's endpoint gets all events. An endpoint that is bound to a tenant gets what the
tenant may read in the audit log, and is deleted with the tenant.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, exists, func, select

from app.audit import actions
from app.audit.details import EndpointChange, EndpointDescription
from app.clock import now
from app.concurrency.gevent import spawn
from app.concurrency.places import without_places
from app.config import Config
from app.errors import ConflictError, ValidationFailedError
from app.identity import Maker, ensure_room, one_or_not_found, tenant_of, was_revoked
from app.ids import first_id_at, new_id
from app.limits import limits
from app.limits.tenant_share import TenantShare
from app.outbound.addresses import DNS_SECONDS, AddressError, parse, resolve
from app.store.database import Database, Lock, Session, until_committed
from app.store.keyset import Page, page
from app.store.models import (
    DeliveryStatus,
    DisabledBecause,
    EndpointStatus,
    Tenant,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from app.webhooks.endpoint_secrets import Secrets, retire_secret
from app.webhooks.events import RECOVERABLE, RECOVERED_AT_ONCE, TEST_TYPE, missed_by

_FIRST_ATTEMPT = timedelta(minutes=1)  # the longest time from an event to its first attempt


@dataclass(eq=False)
class Endpoints:
    """The service that creates, changes, lists and deletes endpoints."""

    _db: Database
    _config: Config
    _secrets: Secrets
    _share: TenantShare

    def create(
        self,
        principal: Maker,
        *,
        url: str,
        types: list[str],
        tenant_id: UUID | None = None,
        description: str | None = None,
    ) -> tuple[WebhookEndpoint, str]:
        """Create an endpoint. Return it with its secret, which can't be read again.

        Raises ValidationFailedError for a URL that may not be called, NotFoundError for a tenant
        that the principal can't see, SuspendedError, and RateLimitedError for too many endpoints.
        """
        tenant_id = tenant_id or principal.tenant_scope
        self._ensure_allowed(principal, url, by_vendor=principal.is_vendor)
        endpoint_id = new_id()
        secret, sealed = self._secrets.make(endpoint_id)
        with self._db.write(principal) as db:
            limit = limits.ENDPOINTS_OF_VENDOR
            if tenant_id is None:
                Lock.ENDPOINTS.hold(db)
            else:
                tenant_of(db, principal, tenant_id, lock=True).ensure_active()
                limit = limits.ENDPOINTS_OF_TENANT
            own = _live().where(WebhookEndpoint.tenant_id.is_not_distinct_from(tenant_id))
            ensure_room(db, own.with_only_columns(func.count()), limit)
            endpoint = WebhookEndpoint(
                id=endpoint_id,
                tenant_id=tenant_id,
                url=url,
                types=types,
                description=description,
                secret=sealed,
                url_by=principal.key_id,
                secret_by=principal.key_id,
                by_vendor=principal.is_vendor,
            )
            db.add(endpoint)
            db.flush()
            described = _described(endpoint)
            actions.ENDPOINT_CREATED.record(db, principal.actor, described, endpoint.tenant_id)
            return endpoint, secret

    def list(self, principal: Maker, *, limit: int, after: UUID | None) -> Page[WebhookEndpoint]:
        """Return the endpoints that the principal can see, newest first."""
        with self._db.read() as db:
            return page(db, _seen_by(principal), WebhookEndpoint.id, limit=limit, after=after)

    def get(self, principal: Maker, endpoint_id: UUID) -> WebhookEndpoint:
        with self._db.read() as db:
            return one_seen_by(db, principal, endpoint_id)

    def change(
        self, principal: Maker, endpoint_id: UUID, fields: dict[str, Any]
    ) -> tuple[WebhookEndpoint, int]:
        """Change the given fields: `url`, `types`, `description` and `status`.

        Return the endpoint, and the number of events that it missed, up to 10,000. The number is
        zero unless this enables the endpoint. It counts events of the endpoint's previous types,
        from the first that failed, or from the time when the endpoint was disabled.

        Raises NotFoundError, ValidationFailedError for a URL that may not be called, and
        ConflictError for an endpoint that may not be enabled.
        """
        missed = 0
        with self._db.read() as db:
            before = one_seen_by(db, principal, endpoint_id)
            if before.disabled_at and fields.get("status") == EndpointStatus.ENABLED:
                missed = _count_missed(db, before)
        if "url" in fields:
            by_vendor = before.by_vendor and principal.is_vendor
            self._ensure_allowed(principal, fields["url"], by_vendor=by_vendor)
        with self._db.write(principal) as db:
            endpoint = one_seen_by(db, principal, endpoint_id, lock=True)
            endpoint.by_vendor = endpoint.by_vendor and principal.is_vendor
            was, status = endpoint.status, fields.pop("status", endpoint.status)
            for name, value in fields.items():
                setattr(endpoint, name, value)
            if "url" in fields:
                endpoint.url_by = principal.key_id
                if endpoint.status is EndpointStatus.ENABLED:  # else enabling counts what it missed
                    _begin_again(endpoint)
            if status != endpoint.status and status == EndpointStatus.ENABLED:
                _ensure_nobody_knows(db, endpoint)
                endpoint.status = EndpointStatus.ENABLED
                endpoint.disabled_at = endpoint.disabled_because = None
                _begin_again(endpoint)
            elif status != endpoint.status:
                endpoint.disable(DisabledBecause.ASKED)
            change: EndpointChange = {"was": was, **_described(endpoint)}
            actions.ENDPOINT_CHANGED.record(db, principal.actor, change, endpoint.tenant_id)
            return endpoint, missed

    @until_committed
    def delete(self, principal: Maker, endpoint_id: UUID) -> None:
        """Delete an endpoint: from then on it gets nothing. Raises NotFoundError."""
        self.get(principal, endpoint_id)  # refuses an absent endpoint without the lock
        with self._db.write(principal) as db:
            endpoint = one_seen_by(db, principal, endpoint_id, lock=True)
            endpoint.end()
            actions.ENDPOINT_DELETED.record(
                db, principal.actor, {"webhook_endpoint_id": str(endpoint.id)}, endpoint.tenant_id
            )

    def rotate_secret(self, principal: Maker, endpoint_id: UUID, *, grace_seconds: int) -> str:
        """Replace an endpoint's secret, and return the new one. During the grace both sign.

        `retire_secret` decides when old secrets stop signing. Raises NotFoundError, and
        ConflictError while an earlier secret still signs.
        """
        with self._db.write(principal) as db:
            endpoint = one_seen_by(db, principal, endpoint_id, lock=True)
            retire_secret(db, endpoint, grace_seconds)
            secret, endpoint.secret = self._secrets.make(endpoint.id)
            endpoint.secret_by = principal.key_id
            actions.ENDPOINT_SECRET_ROTATED.record(
                db, principal.actor, {"webhook_endpoint_id": str(endpoint.id)}, endpoint.tenant_id
            )
            return secret

    def _ensure_allowed(self, principal: Maker, url: str, *, by_vendor: bool) -> None:
        """Raise ValidationFailedError if the URL may not be called.

        It waits for DNS, so call it outside of transactions.
        """
        networks = self._config.service.webhook_allowed_networks if by_vendor else ()

        def resolve_in_turn() -> None:
            with self._share.resolving(principal.lock_id):
                resolve(url, networks)

        try:
            with without_places():
                spawn(resolve_in_turn).result(limits.NAMES_RESOLVED.patience + DNS_SECONDS)
        except TimeoutError as error:
            raise ValidationFailedError(url="Its host's name can't be resolved in time.") from error
        except AddressError as error:
            raise ValidationFailedError(url=str(error)) from error


def _count_missed(db: Session, endpoint: WebhookEndpoint) -> int:
    """Return how many events a disabled endpoint missed, up to RECOVERED_AT_ONCE.

    They are the events of the last 30 days since its first failure in a row, or since it was
    disabled, and what was not delivered before: events of one tenant may have failed while those of
    others were delivered.
    """
    since = min(filter(None, (endpoint.failing_since, endpoint.disabled_at))) - _FIRST_ATTEMPT
    since = max(since, endpoint.created_at, now() - RECOVERABLE)
    events = missed_by(endpoint, since, None)
    of_events = WebhookDelivery.event_id == WebhookEvent.id, WebhookEvent.type != TEST_TYPE
    earlier = select(WebhookDelivery.event_id).where(
        *of_events,
        WebhookDelivery.endpoint_id == endpoint.id,
        WebhookDelivery.status != DeliveryStatus.DELIVERED,
        WebhookEvent.id < first_id_at(since),  # a delivery that recovers an old event is new
        WebhookEvent.id >= first_id_at(now() - RECOVERABLE),
    )
    missed = 0
    for query in (events, earlier):
        some = query.limit(RECOVERED_AT_ONCE).subquery()
        missed += db.scalars(select(func.count()).select_from(some)).one()
    return min(missed, RECOVERED_AT_ONCE)


def _ensure_nobody_knows(db: Session, endpoint: WebhookEndpoint) -> None:
    """Raise ConflictError if a revoked key set the endpoint's URL or its secret."""
    if was_revoked(db, endpoint.url_by) or was_revoked(db, endpoint.secret_by):
        raise ConflictError(
            "The key that set its URL or its secret was revoked. Replace the secret, and give the"
            " url together with this status."
        )


def _begin_again(endpoint: WebhookEndpoint) -> None:
    """Forget the outcomes of earlier attempts, and treat the endpoint as new."""
    endpoint.forget_failures()
    endpoint.is_slow, endpoint.due_at = True, now()


def _live() -> Select[WebhookEndpoint]:
    return select(WebhookEndpoint).where(WebhookEndpoint.status != EndpointStatus.DELETED)


def _seen_by(principal: Maker) -> Select[WebhookEndpoint]:
    """Select the endpoints that the principal can see: of live tenants, or the vendor's."""
    of_deleted = exists().where(
        Tenant.id == WebhookEndpoint.tenant_id, Tenant.deleted_at.is_not(None)
    )
    query = _live().where(~of_deleted)
    return query if principal.is_vendor else query.filter_by(tenant_id=principal.tenant_scope)


def one_seen_by(
    db: Session, principal: Maker, endpoint_id: UUID, *, lock: bool = False
) -> WebhookEndpoint:
    """Return an endpoint that the principal can see. Raises NotFoundError."""
    query = _seen_by(principal).filter_by(id=endpoint_id)
    return one_or_not_found(db, query.with_for_update(key_share=True) if lock else query)


def _described(endpoint: WebhookEndpoint) -> EndpointDescription:
    """Describe the endpoint in an event, without the path of its URL, which may be a secret."""
    return {
        "webhook_endpoint_id": str(endpoint.id),
        "host": parse(endpoint.url).name,
        "types": endpoint.types,
        "endpoint_status": endpoint.status,
    }
