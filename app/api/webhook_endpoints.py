"""Webhook endpoints, their deliveries, and the types of events that they get."""

from functools import partial
from typing import Any
from uuid import UUID

from marshmallow import fields, validate

from app.api.kit.blueprint import Blueprint, JsonObject, changing, paged, principal, services
from app.api.kit.pagination import PageQuery, page_of
from app.api.kit.schemas import (
    Answer,
    Empty,
    Strict,
    choice,
    date_time,
    doc,
    line,
    list_of,
    mapping,
    nullable_date_time,
    nullable_string,
    nullable_uuid,
    number,
    one_of,
    seconds,
    string,
    uuid,
)
from app.audit.actions import WEBHOOK_TYPES
from app.idempotency.attempts import Effect
from app.outbound.addresses import MAX_URL_LENGTH
from app.store.models import DeliveryStatus, WebhookDelivery, WebhookEndpoint
from app.webhooks.endpoint_secrets import GRACE_SECONDS, GRACE_SECONDS_MAX

_URL = "https://app.example.com/webhooks/deputy"
_TYPES = 'Types of events (`GET /v1/event-types`), or `["*"]` for all.'
_GRACE = f"Seconds for which the old secret signs too. Default {GRACE_SECONDS}."
_SECRET = "whsec_<44 characters>"  # noqa: S105  an example


_TYPE = partial(one_of, "EventTypeOrAll", "*", *WEBHOOK_TYPES)


class Types(fields.List[Any]):
    """Types of events, sorted and without duplicates."""

    def __init__(self, **options: Any) -> None:
        bounds = validate.Length(1, len(WEBHOOK_TYPES) + 1)
        metadata = doc(["connection.verified"], _TYPES)
        super().__init__(_TYPE(), metadata=metadata, validate=bounds, **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        types = super()._deserialize(value, *args, **options)
        return ["*"] if "*" in types else sorted(set(types))


class NewWebhookEndpoint(Strict):
    EXAMPLE = {"url": _URL, "types": ["connection.verified"]}

    url = line(MAX_URL_LENGTH, _URL, "It begins with https:// and uses port 443.", required=True)
    types = Types(required=True)
    tenant_id = nullable_uuid("Send it this tenant's events alone.")
    description = line(200, "our own product", allow_none=True)


class WebhookEndpointChange(Strict):
    url = line(MAX_URL_LENGTH, _URL)
    types = Types()
    description = line(200, "our own product", allow_none=True)
    status = one_of("WebhookEndpointStatus", "enabled", "disabled")


class WebhookEndpointOut(Answer):
    id = uuid()
    url = string(_URL)
    types = fields.List(_TYPE(), metadata=doc(["connection.verified"], _TYPES))
    tenant_id = nullable_uuid("null: events of all tenants.")
    description = nullable_string("our own product")
    status = one_of("WebhookEndpointStatus", "enabled", "disabled")
    disabled_because = nullable_string(
        None, "`asked`, `failing`, `gone` (it answered 410) or `revoked`; null: it is enabled."
    )
    created_at = date_time()
    last_success_at = nullable_date_time()
    failing_since = nullable_date_time("When the first attempt after the last success failed.")


class CreatedWebhookEndpoint(WebhookEndpointOut):
    secret = string(_SECRET, "Signs the deliveries. Only this answer shows it.")


class ChangedWebhookEndpoint(WebhookEndpointOut):
    missed = number(
        0, "After enabling: the number of events that it did not get. `recover` sends them."
    )


class SecretRotation(Strict):
    grace_seconds = seconds(GRACE_SECONDS, 0, GRACE_SECONDS_MAX, _GRACE)


class WebhookSecret(Answer):
    secret = string(_SECRET, "Only this answer shows it.")


class Recovery(Strict):
    since = date_time("At most 30 days ago.", required=True)
    until = date_time("Not included. Without it: until now.")


class Recovered(Answer):
    deliveries = number(12, "How many events will be sent.")


class SentTestEvent(Answer):
    event_id = uuid()


class DeliveryAttempt(Answer):
    at = string("2026-11-28T12:00:00+00:00")
    status_code = number(200, "null: there was no answer.", allow_none=True)
    ms = number(120)
    error = nullable_string(None, "Why there was no answer, in one word.")
    answer = nullable_string(
        None, "The first KiB of the last attempt's answer. null for bound keys."
    )


class DeliveryOut(Answer):
    id = uuid()
    event_id = uuid()
    type = string("connection.verified", attribute="event.type")
    status = choice(DeliveryStatus)
    attempts = list_of(DeliveryAttempt, "The last twenty.")
    created_at = date_time()
    next_attempt_at = nullable_date_time()

    def read_attempts(self, delivery: WebhookDelivery) -> list[JsonObject]:
        if principal().is_vendor:
            return delivery.attempts
        # A tenant chose the URL, so the answer may come from a service inside the vendor's network
        return [attempt | {"answer": None} for attempt in delivery.attempts]


class EventTypeOut(Answer):
    type = string("connection.verified")
    description = string("A proof passed, and the connection issues credentials.")
    details = mapping({"type": "object"}, "The JSON Schema of `data.details`.")


class EventTypes(Answer):
    items = list_of(EventTypeOut)


_ABOUT = "URLs to which events are sent, as Standard Webhooks specifies."
bp = Blueprint("webhook_endpoints", _ABOUT, noun="webhook_endpoint")
_ALL = "/v1/webhook-endpoints"
_ONE = f"{_ALL}/<uuid:endpoint_id>"
_SCOPE = "webhooks:write"


@bp.operation(
    "POST", _ALL, _SCOPE, CreatedWebhookEndpoint, takes=NewWebhookEndpoint, status=201, fails=[404]
)
def create_webhook_endpoint(body: JsonObject) -> JsonObject:
    """Create a webhook endpoint. Only this answer shows its secret.

    An unbound key's endpoint gets the events of all tenants. An endpoint that is bound to a tenant
    gets what the tenant may read in the audit log. When the key that set an endpoint's URL or
    secret is revoked, the endpoint is disabled.
    """
    endpoint, secret = services.endpoints.create(changing(), **body)
    return _shown(endpoint) | {"secret": secret}


@bp.operation("GET", _ALL, _SCOPE, page_of(WebhookEndpointOut), takes=PageQuery)
def list_webhook_endpoints(query: JsonObject) -> JsonObject:
    """List the webhook endpoints that the key can see, newest first."""
    return paged(query, services.endpoints.list, principal())


@bp.operation("GET", _ONE, _SCOPE, WebhookEndpointOut)
def get_webhook_endpoint(endpoint_id: UUID) -> WebhookEndpoint:
    """Read a webhook endpoint."""
    return services.endpoints.get(principal(), endpoint_id)


@bp.operation("PATCH", _ONE, _SCOPE, ChangedWebhookEndpoint, takes=WebhookEndpointChange)
def change_webhook_endpoint(body: JsonObject, endpoint_id: UUID) -> JsonObject:
    """Change a webhook endpoint, or enable or disable it.

    While it is disabled it gets nothing, and its pending deliveries fail.
    """
    endpoint, missed = services.endpoints.change(changing(), endpoint_id, body)
    return _shown(endpoint) | {"missed": missed}


@bp.operation("DELETE", _ONE, _SCOPE, status=204)
def delete_webhook_endpoint(endpoint_id: UUID) -> None:
    """Delete a webhook endpoint: from then on it gets nothing."""
    services.endpoints.delete(principal(), endpoint_id)


@bp.operation("POST", f"{_ONE}/rotate-secret", _SCOPE, WebhookSecret, takes=SecretRotation)
def rotate_webhook_secret(body: JsonObject, endpoint_id: UUID) -> JsonObject:
    """Replace an endpoint's secret. During the grace the old one signs too.

    The answer is 409 while the secret before the present one still signs. With a `grace_seconds`
    of 0, both secrets stop signing at once.
    """
    return {"secret": services.endpoints.rotate_secret(changing(), endpoint_id, **body)}


def _recovered_before(effect: Effect) -> JsonObject:
    return {"deliveries": services.redelivery.count_pending(principal(), effect.thing)}


def _sent_before(effect: Effect) -> JsonObject:
    return {"event_id": effect.thing}


@bp.operation(
    "POST", f"{_ONE}/test", _SCOPE, SentTestEvent, takes=Empty, status=202, again=_sent_before
)
def send_test_event(_body: JsonObject, endpoint_id: UUID) -> JsonObject:
    """Send an example event to this endpoint alone."""
    return {"event_id": services.redelivery.test(principal(), endpoint_id)}


@bp.operation(
    "POST",
    f"{_ONE}/recover",
    _SCOPE,
    Recovered,
    takes=Recovery,
    status=202,
    again=_recovered_before,
)
def recover_webhook_events(body: JsonObject, endpoint_id: UUID) -> JsonObject:
    """Send the events of a period that were not delivered, at most 10,000."""
    return {"deliveries": services.redelivery.recover(principal(), endpoint_id, **body)}


@bp.operation("GET", f"{_ONE}/deliveries", _SCOPE, page_of(DeliveryOut), takes=PageQuery)
def list_webhook_deliveries(query: JsonObject, endpoint_id: UUID) -> JsonObject:
    """List an endpoint's deliveries of the last 30 days, newest first."""
    return paged(query, services.redelivery.deliveries, principal(), endpoint_id)


@bp.operation(
    "POST",
    f"{_ONE}/deliveries/<uuid:delivery_id>/redeliver",
    _SCOPE,
    Empty,
    takes=Empty,
    status=202,
    again=lambda _: {},
)
def redeliver_webhook(_body: JsonObject, endpoint_id: UUID, delivery_id: UUID) -> JsonObject:
    """Attempt a delivery again now."""
    services.redelivery.redeliver(principal(), endpoint_id, delivery_id)
    return {}


@bp.operation("GET", "/v1/event-types", _SCOPE, EventTypes)
def list_event_types() -> JsonObject:
    """List the types of events that are sent to webhook endpoints."""
    return {
        "items": [
            {"type": action, "description": action.when, "details": action.schema}
            for action in WEBHOOK_TYPES.values()
        ]
    }


def _shown(endpoint: WebhookEndpoint) -> JsonObject:
    return {name: getattr(endpoint, name) for name in WebhookEndpointOut().fields}
