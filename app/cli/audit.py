"""The audit log: who did what, when, and to which connection.

The command `audit who` says who got the session that a line of CloudTrail names.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from operator import itemgetter
from time import sleep
from typing import Any
from uuid import UUID

import click

from app.audit import actions
from app.audit.events import ACTIONS
from app.audit.log import EventFilter
from app.aws.session_names import key_id_in
from app.cli.commands import TIME_HELP, Lookup, Noun, Row, lines, row_of, services, time
from app.cli.names import connection_id_called, key_called, tenant_id_called, tenant_option
from app.clock import now
from app.http.current_request import address_of
from app.ids import ACCESS_KEY_ID, RoleArn, first_id_at
from app.issuing.session_origins import HAND_OUTS_MAX
from app.settings.valid_values import SESSION_MAX
from app.store.keyset import every, pages
from app.store.models import AuditEvent

noun = Noun("audit", help="The audit log. TENANT is an id, a reference or a name.")
_MOST = 1_000_000  # most events of one search, because its result is in memory
_PAUSE = 2.0  # seconds between two reads of the feed


# An option's type. `--help` shows the function's name.
def address(text: str) -> str:
    if canonical := address_of(text):
        return canonical
    raise ValueError(
        "must be one IP address, such as 203.0.113.9. A network can't be searched for."
    )


def access_key_id(value: str) -> str:
    if not ACCESS_KEY_ID.fullmatch(value):
        raise ValueError(
            "must be an access key id of 16 to 128 letters and digits, such as"
            " ASIAIOSFODNN7EXAMPLE."
        )
    return value


_TENANT_ID = Lookup(tenant_id_called)
_TENANT = click.argument("tenant_id", metavar="TENANT", type=_TENANT_ID)
_OF_TENANT = tenant_option(
    type=_TENANT_ID, help="Its id (also of a deleted one), reference or name."
)
_OF_CONNECTION = click.option(
    "--connection",
    "connection_id",
    type=Lookup(connection_id_called),
    help="Its id (also of a deleted one), its role's ARN or its account.",
)
_SINCE = click.option("--since", type=time, help=TIME_HELP)
_UNTIL = click.option("--until", type=time, help="As --since; not included.")
_ACTIONS = click.option(
    "--action",
    "actions",
    multiple=True,
    type=click.Choice([*ACTIONS]),
    metavar="NOUN.VERB",
    help="Repeat for several.",
)
_HAND_OUTS = (actions.CREDENTIALS_ISSUED,)
_COLUMNS = "at action outcome actor tenant_id connection_id details"


def _row(event: AuditEvent) -> Row:
    row = row_of(
        event,
        "id at action outcome actor_id tenant_id connection_id request_id client_address details",
    )
    return row | {"actor": {event.actor_kind: event.actor_name}}


def _events(**conditions: Any) -> Iterator[AuditEvent]:
    return every(services.audit.events, None, EventFilter(**conditions))


@noun.verb(
    "--tenant acme --action connection.suspended --action connection.resumed --since 7d",
    columns=_COLUMNS,
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
    "--access-key-id",
    type=access_key_id,
    metavar="TEXT",
    help="Of a session: its first hand-out by each web process.",
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
        click.echo(
            f"There are more than {limit}: raise --limit, or set --since or --until.", err=True
        )
    return rows


@noun.verb("--tenant acme --since 10m", columns=_COLUMNS)
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
@click.option("--since", type=time, default="yesterday", show_default=True, help=TIME_HELP)
@_UNTIL
def issued(**conditions: Any) -> list[Row]:
    """Show who got credentials for a tenant, and how often."""
    rows: dict[Any, Row] = {}
    # Newest first
    for event in _events(actions=_HAND_OUTS, **conditions):
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
    sessions: dict[str, Row] = {}  # the keys are access key ids
    since = now() - timedelta(seconds=SESSION_MAX)
    for event in _events(tenant_id=tenant_id, since=since, actions=_HAND_OUTS):
        expires_at = datetime.fromisoformat(event.details["expires_at"])
        if expires_at > now():
            session = {
                "access_key_id": event.details["access_key_id"],
                "expires_at": expires_at,
                "connection_id": event.connection_id,
                "last_actor": event.actor_name,
                "actor_id": event.actor_id,
                "hand_outs": 0,
            }
            sessions.setdefault(session["access_key_id"], session)["hand_outs"] += 1
    return sorted(sessions.values(), key=itemgetter("expires_at"))


# --- who ---

_SHOWN = 20  # most hand-outs that are shown
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)  # every name that STS accepts

_ISSUED = "Deputy handed out credentials of this session."
_PROOF = "Deputy proved or diagnosed the role with this session, and handed it to nobody."
_NOT_HANDED_OUT = (
    "The name has the id of an API key, but no hand-out of such a session is on record."
)
_NO_SUCH_SESSION = "No hand-out of a session with this access key id is on record."
_NOT_OURS = "Deputy did not make this name with the secret keys that it has now."
_OTHER_FORM = (
    "Deputy did not make this name: its names are deputy-, 32 hex digits, - and 24 hex digits."
)

_OLDER = (
    " Older events have left the log: look into the months that you archived (docs/monitoring.md,"
    " Archive a month)."
)
_IS_IT_THE_SAME = (
    "The name of a session is its caller's choice. The line is about this session only if its"
    " accessKeyId is the one above."
)
_IS_IT_A_PROOF = (
    "The name of a session is its caller's choice, and this one may have been copied. The line is"
    " about a proof only if the session was opened from the account {accounts}, and did nothing but"
    " ask who it is and read its own role. Otherwise somebody else is let in by the role: see"
    " docs/runbooks.md, A customer sees odd access."
)
_WHO_KNOWS_THE_KEY = (
    "A session that was opened and given to nobody makes no calls. If it made calls after"
    " log_begins_at, none of your programs made them, unless they were before the last restore of"
    " a backup: everybody who reads the customer's CloudTrail knows the key's id. See"
    f" docs/runbooks.md, A customer sees odd access.{_OLDER}"
)
_ASK_BY_NAME = (
    "Ask with the session's name and --role as well: sessions of proofs are found by their names"
    " alone. If neither is found and the session began after log_begins_at, Deputy did not hand it"
    f" out: see docs/runbooks.md, A customer sees odd access.{_OLDER}"
)
_ASK_WITH_OLD_KEYS = (
    "If a key was removed from DEPUTY_SECRET_KEYS since, ask again with that key at the end of the"
    " list, for this command alone. Otherwise the caller is not Deputy: see docs/runbooks.md, A"
    " customer sees odd access."
)
_NOT_DEPUTY = "The caller is not Deputy: see docs/runbooks.md, A customer sees odd access."


def _describe(row: Row) -> Iterator[str]:
    answer, to_do = row.pop("answer"), row.pop("to_do")
    yield from (answer, "", *lines(row), "", click.wrap_text(to_do, 100))


@noun.verb(
    "deputy-0190…-3f2a… --role arn:aws:iam::123456789012:role/deputy-0123abcd", text=_describe
)
@click.argument("session")
@click.option(
    "--role",
    type=lambda text: RoleArn.parse(text).text,
    metavar="TEXT",
    help="The role's ARN: roleArn in the line of AssumeRole. Makes the search short.",
)
def who(session: str, role: str | None) -> Row:
    """Say who got the session that a line of CloudTrail names.

    SESSION is an access key id (accessKeyId) or a session's name (roleSessionName), which is also
    the end of the session's ARN. The answer is that Deputy handed the session out, that it proved a
    role with it, or that it has nothing to do with it.
    """
    if ACCESS_KEY_ID.fullmatch(session):
        hand_outs = services.session_origins.hand_outs(session)
        return _issued(hand_outs, role) if hand_outs else _unknown(_NO_SUCH_SESSION, _ASK_BY_NAME)
    name = re.split("[/:]", session)[-1]
    if not _SESSION_NAME.fullmatch(name):
        raise click.BadParameter(
            "must be an access key id, or the name of a session.", param_hint="SESSION"
        )
    return _named(name, role)


def _named(name: str, role: str | None) -> Row:
    origins, key_id = services.session_origins, key_id_in(name)
    if key_id is None:
        return _unknown(_OTHER_FORM, _NOT_DEPUTY)
    if (key := origins.key(key_id)) is None:
        proven = origins.proven_role(name, role)
        return _proof(name, proven, role) if proven else _unknown(_NOT_OURS, _ASK_WITH_OLD_KEYS)
    if role is None and key.tenant_id is None:
        click.echo("Reading what all tenants were issued. --role makes the search short.", err=True)
    if hand_outs := origins.hand_outs_named(name, key, role):
        return _issued(hand_outs, role)
    row = _unknown(_NOT_HANDED_OUT, _WHO_KNOWS_THE_KEY)
    return row | {"api_key": key.name, "api_key_id": key.id}


def _issued(hand_outs: list[AuditEvent], role: str | None) -> Row:
    """Return the answer about a session that was handed out.

    `hand_outs`: the newest first.
    """
    last = hand_outs[0]
    connection = services.session_origins.connection(last.connection_id)
    role_arn = connection.role_arn if connection else None
    _ensure_role(role_arn, role)
    number = len(hand_outs)
    return {
        "answer": _ISSUED,
        "to_do": _IS_IT_THE_SAME,
        "access_key_id": last.details["access_key_id"],
        "session_name": last.details["session_name"],
        "expires_at": last.details["expires_at"],
        "api_key": last.actor_name,
        "api_key_id": last.actor_id,
        "tenant": connection and connection.tenant.name,
        **row_of(last, "tenant_id connection_id"),
        "role_arn": role_arn,
        "hand_outs": f"{number} or more" if number == HAND_OUTS_MAX else number,
        "latest": [*map(_hand_out, hand_outs[:_SHOWN])],
    }


def _hand_out(event: AuditEvent) -> Row:
    source, reason = event.details["source"], event.details["reason"]
    return row_of(event, "at client_address request_id") | {"source": source, "reason": reason}


def _ensure_role(role_arn: str | None, role: str | None) -> None:
    if role not in {None, role_arn}:
        raise click.ClickException(
            f"The session is Deputy's, but of another role than --role: {role_arn}. Check the line."
        )


def _proof(name: str, role_arn: str, role: str | None) -> Row:
    _ensure_role(role_arn, role)
    config = services.config
    canary, stranger = config.proofs.canary_role_arn, config.proofs.stranger_role_arn
    accounts: str = config.aws.broker.account_id
    if stranger:
        accounts += f" or {stranger.account_id}"
    own = {canary: "the canary", stranger: "the stranger"}
    return {
        "answer": _PROOF,
        "to_do": _IS_IT_A_PROOF.format(accounts=accounts),
        "session_name": name,
        "role_arn": role_arn,
        "role": own.get(RoleArn.parse(role_arn), "a customer's"),
        "connections": [
            {"connection_id": connection.id} | row_of(connection, "tenant.name tenant_id status")
            for connection in services.session_origins.connections_to(role_arn)
        ],
    }


def _unknown(answer: str, to_do: str) -> Row:
    log_begins_at = services.session_origins.log_begins_at()
    return {"answer": answer, "to_do": to_do, "log_begins_at": log_begins_at}
