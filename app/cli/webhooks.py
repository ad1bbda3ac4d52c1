"""Webhook endpoints, to which events are sent, and their deliveries."""

from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

import click

from app.audit.actions import WEBHOOK_TYPES
from app.cli.commands import TIME_HELP, Noun, Row, operator, row_of, services, text, time
from app.cli.names import tenant_option
from app.clock import now
from app.store.keyset import every
from app.store.models import EndpointStatus

noun = Noun("webhooks", help="Webhook endpoints. ENDPOINT is an id.")
_ENDPOINT = click.argument("endpoint_id", metavar="ENDPOINT", type=click.UUID)
_EXAMPLE = "019c1f6e-8a00-7c3b-9d41-5f0e7a2b6c18"
_row = partial(
    row_of, names="id url types tenant_id status disabled_because last_success_at failing_since"
)


@noun.verb(columns="id status disabled_because last_success_at failing_since tenant_id url")
def list_command() -> list[Row]:
    """List the webhook endpoints."""
    return [*map(_row, every(services.endpoints.list, operator()))]


@noun.verb("https://app.example.com/webhooks/deputy --type connection.verified", changes=True)
@click.argument("url")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice([*WEBHOOK_TYPES]),
    metavar="NOUN.VERB",
    help="Send it this type of event; repeat for several (default: all types).",
)
@tenant_option(help="Send it this tenant's events alone: its id, reference or name.")
@click.option("--description", type=text, help="What it is for.")
def add(url: str, types: tuple[str, ...], **options: Any) -> Row:
    """Add a webhook endpoint and print its secret, once."""
    chosen = sorted({*types}) or ["*"]
    endpoint, secret = services.endpoints.create(operator(), url=url, types=chosen, **options)
    click.echo("The secret is shown this once. Deputy keeps it sealed.", err=True)
    return {"id": endpoint.id, "secret": secret}


@noun.verb(_EXAMPLE, changes=True)
@_ENDPOINT
def test(endpoint_id: UUID) -> str:
    """Send an example event to an endpoint. `webhooks deliveries` shows the outcome."""
    return f"The event {services.redelivery.test(operator(), endpoint_id)} is on its way."


@noun.verb(
    f"{_EXAMPLE} --limit 20", columns="event_id type status attempted at status_code ms error"
)
@_ENDPOINT
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
def deliveries(endpoint_id: UUID, limit: int) -> list[Row]:
    """List an endpoint's deliveries, newest first.

    Each is shown with its last attempt, and with the number of its attempts, up to twenty. --json
    shows all of these.
    """
    rows = []
    for delivery in islice(every(services.redelivery.deliveries, operator(), endpoint_id), limit):
        last: Row = {"at": None, "status_code": None, "ms": None, "error": None}
        last["attempted"] = len(delivery.attempts)
        if delivery.attempts:
            last |= delivery.attempts[-1]
            last["at"] = datetime.fromisoformat(last["at"])
        row = row_of(delivery, "id event_id status tries next_attempt_at attempts")
        rows.append(row | {"type": delivery.event.type} | last)
    return rows


@noun.verb(f"{_EXAMPLE} --since 12h", changes=True)
@_ENDPOINT
@click.option("--since", required=True, type=time, help=TIME_HELP)
@click.option("--until", type=time, help="As --since; not included (default: now).")
def recover(endpoint_id: UUID, since: datetime, until: datetime | None) -> str:
    """Send an endpoint the events of a period that it did not get."""
    number = services.redelivery.recover(operator(), endpoint_id, since=since, until=until or now())
    return f"Events that will be sent: {number}."


@noun.verb(_EXAMPLE, changes=True)
@_ENDPOINT
def enable(endpoint_id: UUID) -> str:
    """Enable an endpoint. `webhooks recover` then sends what it did not get."""
    _, missed = services.endpoints.change(
        operator(), endpoint_id, {"status": EndpointStatus.ENABLED}
    )
    return f"Enabled. Events that it did not get: {missed}."


@noun.verb(_EXAMPLE, changes=True)
@_ENDPOINT
def disable(endpoint_id: UUID) -> str:
    """Disable an endpoint: it gets no events until it is enabled."""
    services.endpoints.change(operator(), endpoint_id, {"status": EndpointStatus.DISABLED})
    return "Disabled."
