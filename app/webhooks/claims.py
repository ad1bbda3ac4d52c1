"""Claims: the deliveries that a background worker attempts next.

Each endpoint has its own queue of deliveries, which `due_at` in its row schedules. It gets at most
four concurrent attempts, and only one while it is new, slow or failing. All tenants' endpoints
together use only a part of the threads, and so do all new, slow or failing endpoints. So endpoints
that hang do not delay other tenants' endpoints, and tenants' endpoints never delay the vendor's.
Within a queue, tenants take turns. If an endpoint refused events of some tenants, only those
tenants' events wait for the next retry.
"""

from collections import Counter
from datetime import datetime, timedelta
from itertools import chain, zip_longest
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, bindparam, func, or_, select, update

from app.clock import now
from app.store.database import Session
from app.store.models import (
    DeliveryStatus,
    EndpointStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)

_LEASE = timedelta(seconds=60)  # longer than an attempt, so no other background worker repeats it
_AGAIN = timedelta(seconds=1)  # until an endpoint whose threads are all in use is looked at again
# Concurrent attempts of all background workers. Two of them that claim at the same moment may each
# use the whole limit, because neither sees the other's claims yet.
_TO_ENDPOINT = 4
_TO_TENANT = 8  # to the endpoints of one tenant
_TO_TENANTS = 16  # to the endpoints of all tenants; the other threads are for the vendor's
_SHARED = 12  # a part of those 16; the rest is for tenants without an attempt in flight
_UNSURE = 8  # to new, slow or failing endpoints; tenants' and the vendor's count separately
# Maximum of each kind in one transaction
_ENDPOINTS = 12
_FAILED_AT_ONCE = 200  # deliveries of a disabled endpoint in one transaction
_BLIND: Any = {"synchronize_session": False}
_PENDING = WebhookDelivery.status == DeliveryStatus.PENDING
# Built once, because building a statement costs as much as running it
_DUE = (
    select(
        WebhookDelivery.id,
        WebhookDelivery.event_id,
        WebhookDelivery.subject,
        WebhookEvent.body,
        WebhookEvent.tenant_body,
    )
    .join(WebhookEvent, WebhookEvent.id == WebhookDelivery.event_id)
    .where(
        WebhookDelivery.endpoint_id == bindparam("endpoint"),
        _PENDING,
        WebhookDelivery.next_attempt_at <= bindparam("now"),
        WebhookDelivery.subject.not_in(bindparam("refused", expanding=True)),
        or_(
            WebhookDelivery.claimed_until.is_(None),
            WebhookDelivery.claimed_until <= bindparam("now"),
        ),
    )
    .order_by(WebhookDelivery.subject, WebhookDelivery.next_attempt_at)
    .limit(bindparam("limit"))
)
_AFTER_TURN = _DUE.where(WebhookDelivery.subject > bindparam("turn"))
_UNTIL_TURN = _DUE.where(WebhookDelivery.subject <= bindparam("turn"))
_LATER = select(func.min(WebhookDelivery.next_attempt_at)).where(
    WebhookDelivery.endpoint_id == bindparam("endpoint"),
    _PENDING,
    WebhookDelivery.next_attempt_at > bindparam("now"),
)
_IS_TENANTS = WebhookEndpoint.tenant_id.is_not(None)
_IS_UNSURE = or_(WebhookEndpoint.failures > 0, WebhookEndpoint.is_slow)


class DeliveryClaim(NamedTuple):
    """A delivery that this process attempts. `secrets`: sealed, the current one first."""

    delivery_id: UUID
    endpoint_id: UUID
    event_id: UUID
    subject: UUID
    url: str
    by_vendor: bool
    body: str
    secrets: tuple[bytes, ...]


class _InFlight:
    """The numbers of in-flight attempts of all background workers."""

    def __init__(self, db: Session) -> None:
        self._endpoints: Counter[UUID] = Counter()
        self._tenants: Counter[UUID | None] = Counter()
        # True: to tenants' endpoints; False: to the vendor's
        self._all: Counter[bool] = Counter()
        self._unsure: Counter[bool] = Counter()
        claimed = (
            select(WebhookEndpoint, func.count())
            .join(WebhookDelivery, WebhookDelivery.endpoint_id == WebhookEndpoint.id)
            .where(WebhookDelivery.claimed_until > now())
            .group_by(WebhookEndpoint.id)
        )
        for endpoint, count in db.execute(claimed):
            self.add(endpoint, count)

    def add(self, endpoint: WebhookEndpoint, count: int) -> None:
        is_tenants = endpoint.tenant_id is not None
        self._endpoints[endpoint.id] += count
        self._tenants[endpoint.tenant_id] += count
        self._all[is_tenants] += count
        if _is_unsure(endpoint):
            self._unsure[is_tenants] += count

    def room(self, endpoint: WebhookEndpoint) -> int:
        """Return how many more attempts may be made to this endpoint."""
        is_tenants = endpoint.tenant_id is not None
        rooms = [_TO_ENDPOINT - self._endpoints[endpoint.id]]
        if _is_unsure(endpoint):
            rooms = [1 - self._endpoints[endpoint.id], _UNSURE - self._unsure[is_tenants]]
        if is_tenants:
            of_tenant = self._tenants[endpoint.tenant_id]
            last = 0 if of_tenant else min(1, _TO_TENANTS - self._all[True])
            rooms += [_TO_TENANT - of_tenant, max(_SHARED - self._all[True], last)]
        return max(0, min(rooms))

    def due(self, current_time: datetime, *, is_tenants: bool) -> Select[WebhookEndpoint]:
        """Select the endpoints that have been due longest, if there is room for their kind."""
        kind = _IS_TENANTS if is_tenants else ~_IS_TENANTS
        query = select(WebhookEndpoint).where(kind, WebhookEndpoint.due_at <= current_time)
        if self._unsure[is_tenants] >= _UNSURE:
            query = query.where(~_IS_UNSURE)
        most = 0 if is_tenants and self._all[True] >= _TO_TENANTS else _ENDPOINTS
        oldest = query.order_by(WebhookEndpoint.due_at).limit(most)
        return oldest.with_for_update(skip_locked=True, key_share=True)


def _is_unsure(endpoint: WebhookEndpoint) -> bool:
    """Return whether the endpoint is new, slow or failing, as _IS_UNSURE does in SQL."""
    return endpoint.failures > 0 or endpoint.is_slow


def claim(db: Session, free: int) -> list[DeliveryClaim]:
    """Claim at most `free` deliveries, for the endpoints that have been due longest.

    Endpoints for which this process has no free thread stay due, for other background workers.
    """
    if not free:
        return []
    current_time, in_flight = now(), _InFlight(db)
    lease = current_time + _LEASE
    claims: list[DeliveryClaim] = []
    # The kinds alternate, so that many endpoints of one kind do not delay the other kind
    vendors, tenants = (
        db.scalars(in_flight.due(current_time, is_tenants=is_tenants)).all()
        for is_tenants in (False, True)
    )
    endpoints = chain.from_iterable(zip_longest(vendors, tenants))
    with db.no_autoflush:  # the endpoints are updated by one statement at the end
        for endpoint in filter(None, endpoints):
            if len(claims) == free:
                break
            own = _of_endpoint(db, endpoint, in_flight, free - len(claims), current_time)
            claims += own
            in_flight.add(endpoint, len(own))
    leased = update(WebhookDelivery).where(
        WebhookDelivery.id.in_([claim.delivery_id for claim in claims])
    )
    db.execute(leased.values(claimed_until=lease, next_attempt_at=lease), execution_options=_BLIND)
    return claims


def _of_endpoint(
    db: Session, endpoint: WebhookEndpoint, in_flight: _InFlight, free: int, current_time: datetime
) -> list[DeliveryClaim]:
    """Return at most `free` of the endpoint's due deliveries, and set when it is due again."""
    if endpoint.status is not EndpointStatus.ENABLED:
        _fail_pending(db, endpoint)
        return []
    waits = endpoint.probe_at is not None and endpoint.probe_at > current_time
    if waits and endpoint.refused is None:
        endpoint.due_at = endpoint.probe_at
        return []
    room = min(in_flight.room(endpoint), free)
    own = _next_due(db, endpoint, current_time, room, endpoint.refused if waits else None)
    # More deliveries may be due. An outcome makes the endpoint due at once.
    endpoint.due_at = current_time + _AGAIN
    if len(own) < room:
        later = db.scalar(_LATER, {"endpoint": endpoint.id, "now": current_time})
        lease = current_time + _LEASE if own else None
        times = [later, lease, endpoint.probe_at if waits else None]
        endpoint.due_at = min(filter(None, times), default=None)
    return own


def _fail_pending(db: Session, endpoint: WebhookEndpoint) -> None:
    """Fail some pending deliveries of an endpoint that is not enabled."""
    pending = select(WebhookDelivery.id).filter_by(endpoint_id=endpoint.id).where(_PENDING)
    some = pending.limit(_FAILED_AT_ONCE)
    failed = update(WebhookDelivery).where(WebhookDelivery.id.in_(some))
    failed = failed.values(status=DeliveryStatus.FAILED, next_attempt_at=None)
    rows = db.execute(failed.returning(WebhookDelivery.id), execution_options=_BLIND).all()
    if len(rows) < _FAILED_AT_ONCE:
        endpoint.due_at = None


def _next_due(
    db: Session,
    endpoint: WebhookEndpoint,
    current_time: datetime,
    most: int,
    refused: list[str] | None,
) -> list[DeliveryClaim]:
    """Return at most `most` due deliveries of the endpoint, beginning with the next subject.

    A subject is a tenant, or NOBODY. `refused`: the subjects that have to wait.

    Each call begins with the subject after the last one of the previous call. So a subject with a
    thousand events delays other subjects' events only by a few deliveries.
    """
    rows: list[Any] = []
    for query in (_AFTER_TURN, _UNTIL_TURN):
        if len(rows) < most:
            room = most - len(rows)
            values = {
                "endpoint": endpoint.id,
                "turn": endpoint.turn,
                "now": current_time,
                "limit": room,
                "refused": [UUID(subject) for subject in refused or []],
            }
            rows += db.execute(query, values)
    if rows:
        endpoint.turn = rows[-1].subject
    secrets = [endpoint.secret]
    if (
        endpoint.old_secret
        and endpoint.old_secret_ends_at
        and endpoint.old_secret_ends_at > current_time
    ):
        secrets.append(endpoint.old_secret)
    return [
        DeliveryClaim(
            row.id,
            endpoint.id,
            row.event_id,
            row.subject,
            endpoint.url,
            endpoint.by_vendor,
            (row.tenant_body if endpoint.tenant_id else None) or row.body,
            tuple(secrets),
        )
        for row in rows
    ]
