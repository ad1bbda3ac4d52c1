"""The command `audit who`, which says who got the session that a line of CloudTrail names."""

import re
import textwrap
from collections.abc import Iterator

import click

from app.cli.audit import noun as noun  # noqa: PLC0414  app.cli.commands has it from here
from app.cli.operator import Row, lines, row_of, services
from app.ids import ACCESS_KEY_ID, RoleArn, key_id_in
from app.issuing.session_origins import HAND_OUTS_MAX
from app.store.models import AuditEvent

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


def text(value: str) -> str:
    """Accept a role's ARN. `--help` shows this function's name."""
    return RoleArn.parse(value).text


def _describe(row: Row) -> Iterator[str]:
    answer, to_do = row.pop("answer"), row.pop("to_do")
    yield from (answer, "", *lines(row), "", *textwrap.wrap(to_do, 100))


@noun.verb(
    "deputy-0190…-3f2a… --role arn:aws:iam::123456789012:role/deputy-0123abcd", text=_describe
)
@click.argument("session")
@click.option(
    "--role",
    type=text,
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
