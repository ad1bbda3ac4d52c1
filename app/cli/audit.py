"""The audit log: who did what, when, and to which connection."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from operator import itemgetter
from time import sleep
from typing import Any
from uuid import UUID

import click

from app.audit import actions
from app.audit.log import EventFilter
from app.cli.finding import connection_called, key_called, tenant_id_called
from app.cli.operator import Lookup, Noun, Row, columns, every, pages, row_of, services
from app.clock import YEARS, as_given, now
from app.http.client import address_of
from app.ids import ACCESS_KEY_ID, first_id_at
from app.settings.checks import SESSION_MAX
from app.store.models import AuditEvent

noun = Noun("audit", help="The audit log. TENANT is an id, a reference or a name.")
_MOST = 1_000_000  # most events of one search, because its result is in memory
_PAUSE = 2.0  # seconds between two reads of the feed
_DAYS_AGO = {"today": 0, "yesterday": 1}
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


# The types of options. `--help` shows the names of these functions.


def time(text: str) -> datetime:
    if text in _DAYS_AGO:
        midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=_DAYS_AGO[text])
    try:
        if ago := _AGO.fullmatch(text):
            return as_given(now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
        given = datetime.fromisoformat(text)
        return as_given(given if given.tzinfo else given.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ValueError(
            "must be yesterday, today, an age such as 90m, 12h or 7d, or an ISO 8601 time"
            f" (UTC). It {YEARS}"
        ) from None


def address(text: str) -> str:
    if (canonical := address_of(text)) is None:
        raise ValueError(
            "must be one IP address, such as 203.0.113.9. A network can't be searched for."
        )
    return canonical


def text(value: str) -> str:
    if not ACCESS_KEY_ID.fullmatch(value):
        raise ValueError(
            "must be an access key id of 16 to 128 letters and digits, such as"
            " ASIAIOSFODNN7EXAMPLE."
        )
    return value


_TENANT_ID = Lookup(tenant_id_called)
_TENANT = click.argument("tenant_id", metavar="TENANT", type=_TENANT_ID)
_OF_TENANT = click.option(
    "--tenant",
    "tenant_id",
    type=_TENANT_ID,
    help="Its id (also of a deleted one), reference or name.",
)
_OF_CONNECTION = click.option(
    "--connection",
    "connection_id",
    type=Lookup(lambda text: connection_called(text).id),
    help="Its id, its role's ARN or its account.",
)
_SINCE = click.option(
    "--since", type=time, help="yesterday, today, 90m, 12h, 7d, or an ISO 8601 time (UTC)."
)
_UNTIL = click.option("--until", type=time, help="As --since; not included.")
_ACTIONS = click.option(
    "--action",
    "actions",
    multiple=True,
    type=click.Choice([*actions.ACTIONS]),
    metavar="NOUN.VERB",
    help="Repeat for several.",
)
_HAND_OUTS = (actions.CREDENTIALS_ISSUED,)
_EVENTS = columns("at action outcome actor tenant_id connection_id details")


def _row(event: AuditEvent) -> Row:
    names = "id at action outcome actor_id tenant_id connection_id request_id client_address"
    return row_of(event, f"{names} details") | {"actor": {event.actor_kind: event.actor_name}}


def _events(**conditions: Any) -> Iterator[AuditEvent]:
    return every(services.audit.events, None, EventFilter(**conditions))


@noun.verb(
    "--tenant acme --action connection.suspended --action connection.resumed --since 7d",
    text=_EVENTS,
)
@_OF_TENANT
@_OF_CONNECTION
@click.option(
    "--key",
    "api_key_id",
    type=Lookup(lambda text: key_called(text).id),
    help="The API key that acted: its id, its first 20 characters, or else its name.",
)
@click.option(
    "--access-key-id", type=text, help="Of a session: its first hand-out by each web process."
)
@click.option("--address", "client_address", type=address, help="The IP address of the request.")
@_ACTIONS
@_SINCE
@_UNTIL
@click.option("--limit", type=click.IntRange(1, _MOST), default=100, show_default=True)
def search(limit: int, **conditions: Any) -> list[Row]:
    """Find audit events, newest first.

    --key and --address use no index: the search reads all events of the given tenant, connection
    and time. `audit who` also finds the later hand-outs of a session.
    """
    events = _events(**conditions)
    rows = list(map(_row, islice(events, limit)))
    if next(events, None) is not None:
        click.echo(f"There are more than {limit}: set --limit, --since or --until.", err=True)
    return rows


@noun.verb("--tenant acme --since 10m", text=_EVENTS)
@_OF_TENANT
@_OF_CONNECTION
@_ACTIONS
@_SINCE
def tail(since: datetime | None, **conditions: Any) -> Iterator[list[Row]]:
    """Print audit events as they come, oldest first, until Ctrl-C.

    An event is shown about 20 seconds after it was made, and none is missed.
    """
    feed = partial(services.audit.events, None, EventFilter(**conditions), oldest_first=True)
    after = first_id_at(since or now() - timedelta(minutes=1))
    try:
        while True:
            for events in filter(None, pages(feed, after=after)):
                after = events[-1].id
                yield list(map(_row, events))
            sleep(_PAUSE)
    except KeyboardInterrupt:
        return


@noun.verb("acme --since yesterday --until today")
@_TENANT
@_SINCE
@_UNTIL
def issued(since: datetime | None, **conditions: Any) -> list[Row]:
    """Show who got credentials for a tenant, and how often.

    The default of --since is yesterday.
    """
    rows: dict[Any, Row] = {}
    # Newest first
    for event in _events(since=since or time("yesterday"), actions=_HAND_OUTS, **conditions):
        row = rows.setdefault(
            (event.actor_id, event.connection_id),
            {"actor": event.actor_name}
            | row_of(event, "actor_id connection_id")
            | {"times": 0, "first_at": event.at, "last_at": event.at},
        )
        row["times"] += 1
        row["first_at"] = event.at
    return [*rows.values()]


@noun.verb("acme")
@_TENANT
def alive(tenant_id: UUID) -> list[Row]:
    """List a tenant's sessions that have not expired yet.

    Suspending does not end them: see "Sessions that were issued already" in docs/runbooks.md.
    """
    sessions: dict[str, Row] = {}
    since = now() - timedelta(seconds=SESSION_MAX)
    for event in _events(tenant_id=tenant_id, since=since, actions=_HAND_OUTS):
        expires_at = datetime.fromisoformat(event.details["expires_at"])
        if expires_at > now():
            key_id = event.details["access_key_id"]
            session = sessions.setdefault(
                key_id,
                {
                    "access_key_id": key_id,
                    "expires_at": expires_at,
                    "connection_id": event.connection_id,
                    "last_actor": event.actor_name,
                    "actor_id": event.actor_id,
                    "hand_outs": 0,
                },
            )
            session["hand_outs"] += 1
    return sorted(sessions.values(), key=itemgetter("expires_at"))
