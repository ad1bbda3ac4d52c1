"""The audit log: who did what, when, and to which connection."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

import click

from app.audit import actions
from app.audit.log import EventFilter
from app.cli.finding import connection_called, key_called, tenant_id_called
from app.cli.operator import TENANT, Noun, Row, columns, every, pages, row_of, services
from app.clock import YEARS, as_given, now
from app.http.client_address import address_of
from app.ids import ACCESS_KEY_ID, first_id_at
from app.settings.checks import SESSION_MAX
from app.store.models import AuditEvent

noun = Noun("audit", help="The audit log. TENANT is an id, a reference or a name.")
_MOST = 1_000_000  # events; upper bound of one search, whose result is in memory
_PAUSE = 2.0  # seconds between two reads of the feed
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class _When(click.ParamType[datetime]):
    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        today = now().replace(hour=0, minute=0, second=0, microsecond=0)
        if value in {"today", "yesterday"}:
            return today - timedelta(days=value == "yesterday")
        try:
            if ago := _AGO.fullmatch(value):
                return as_given(now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
            at = datetime.fromisoformat(value)
            return as_given(at if at.tzinfo else at.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            words = (
                "must be yesterday, today, an age such as 90m, 12h or 7d, or an ISO 8601 time"
                f" (UTC). It {YEARS}"
            )
            self.fail(words, param, ctx)


class _Address(click.ParamType[str]):
    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        address = address_of(value)
        if address is None:
            self.fail(
                "must be one IP address, such as 203.0.113.9. A network can't be searched for.",
                param,
                ctx,
            )
        return address


def _access_key_id(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> str | None:
    if value is not None and not ACCESS_KEY_ID.fullmatch(value):
        raise click.BadParameter(
            "must be an access key id of 16 to 128 letters and digits, such as"
            " ASIAIOSFODNN7EXAMPLE."
        )
    return value


_OF_TENANT = click.option("--tenant", help="Its id (also of a deleted one), reference or name.")
_OF_CONNECTION = click.option("--connection", help="Its id, its role's ARN or its account.")
_SINCE = click.option(
    "--since", type=_When(), help="yesterday, today, 90m, 12h, 7d, or an ISO 8601 time (UTC)."
)
_UNTIL = click.option("--until", type=_When(), help="As --since; not included.")
_ACTIONS = click.option(
    "--action",
    "actions",
    multiple=True,
    type=click.Choice([*actions.ACTIONS]),
    metavar="NOUN.VERB",
    help="Repeat for several.",
)
_EVENTS = columns("at", "action", "outcome", "actor", "tenant_id", "connection_id", "details")


def _row(event: AuditEvent) -> Row:
    return {
        **row_of(event, "id", "at", "action", "outcome"),
        "actor": {event.actor_kind: event.actor_name},
        **row_of(
            event,
            "actor_id",
            "tenant_id",
            "connection_id",
            "request_id",
            "client_address",
            "details",
        ),
    }


def _filter(tenant: str | None, connection: str | None, **wanted: Any) -> EventFilter:
    tenant_id = None if tenant is None else tenant_id_called(tenant)
    connection_id = None if connection is None else connection_called(connection).id
    return EventFilter(tenant_id=tenant_id, connection_id=connection_id, **wanted)


@noun.verb(
    "search",
    "--tenant acme --action connection.suspended --action connection.resumed --since 7d",
    text=_EVENTS,
)
@_OF_TENANT
@_OF_CONNECTION
@click.option(
    "--key", help="The API key that acted: its id, its first 20 characters, or else its name."
)
@click.option(
    "--access-key-id",
    callback=_access_key_id,
    help="Of a session: its first hand-out by each web process.",
)
@click.option("--address", "client_address", type=_Address(), help="The IP address of the request.")
@_ACTIONS
@_SINCE
@_UNTIL
@click.option("--limit", type=click.IntRange(1, _MOST), default=100, show_default=True)
def search(limit: int, key: str | None, **wanted: Any) -> list[Row]:
    """Find audit events, newest first.

    Events of a key or an address have no index: the search reads all events of that tenant,
    connection and time. `audit who` also finds the later hand-outs of a session.
    """
    api_key_id = None if key is None else key_called(key).id
    found = every(partial(services().audit.events, None, _filter(api_key_id=api_key_id, **wanted)))
    rows = [_row(event) for event in islice(found, limit)]
    if next(found, None) is not None:
        click.echo(f"There are more than {limit}: set --limit, --since or --until.", err=True)
    return rows


@noun.verb("tail", "--tenant acme --since 10m", text=_EVENTS)
@_OF_TENANT
@_OF_CONNECTION
@_ACTIONS
@_SINCE
def tail(since: datetime | None, **wanted: Any) -> Iterator[list[Row]]:
    """Print audit events as they come, oldest first, until Ctrl-C.

    An event is shown about 20 seconds after it was made, and none is missed.
    """
    feed = partial(services().audit.feed, None, _filter(**wanted))
    return _follow(feed, first_id_at(since or now() - timedelta(minutes=1)))


def _follow(feed: Any, after: UUID) -> Iterator[list[Row]]:
    try:
        while True:
            for events in filter(None, pages(feed, after)):
                after = events[-1].id
                yield [_row(event) for event in events]
            time.sleep(_PAUSE)
    except KeyboardInterrupt:
        return


def _issued(tenant: str, since: datetime, until: datetime | None = None) -> Iterator[AuditEvent]:
    wanted = _filter(tenant, None, actions=(actions.CREDENTIALS_ISSUED,), since=since, until=until)
    return every(partial(services().audit.events, None, wanted))


@noun.verb("issued", "acme --since yesterday --until today")
@TENANT
@_SINCE
@_UNTIL
def issued(tenant: str, since: datetime | None, until: datetime | None) -> list[Row]:
    """Show who got credentials for a tenant, and how often.

    Since yesterday, unless --since is given.
    """
    found: dict[Any, dict[str, Any]] = {}
    for event in _issued(tenant, since or _When().convert("yesterday", None, None), until):
        who = {"actor": event.actor_name} | row_of(event, "actor_id", "connection_id")
        new = who | {"times": 0, "first_at": event.at, "last_at": event.at}
        row = found.setdefault((event.actor_id, event.connection_id), new)
        row |= {"times": row["times"] + 1, "first_at": event.at}  # newest first
    return [*found.values()]


@noun.verb("alive", "acme")
@TENANT
def alive(tenant: str) -> list[Row]:
    """List a tenant's sessions that have not expired yet.

    Suspending does not end them: see "Sessions that were issued already" in docs/runbooks.md.
    """
    found: dict[str, dict[str, Any]] = {}
    for event in _issued(tenant, now() - timedelta(seconds=SESSION_MAX)):
        expires_at = datetime.fromisoformat(event.details["expires_at"])
        if expires_at > now():
            key_id = event.details["access_key_id"]
            session = {
                "access_key_id": key_id,
                "expires_at": expires_at,
                "connection_id": event.connection_id,
            }
            new = session | {
                "last_actor": event.actor_name,
                "actor_id": event.actor_id,
                "hand_outs": 0,
            }
            found.setdefault(key_id, new)["hand_outs"] += 1
    return sorted(found.values(), key=lambda row: row["expires_at"])
