"""Connections: customers' roles."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from app.approvals.requests import request_to_approve
from app.cli.finding import connection_called, tenant_called
from app.cli.operator import (
    REASON,
    Noun,
    Row,
    columns,
    every,
    lines,
    operator,
    row_of,
    services,
    table,
)
from app.connections.listing import ConnectionFilter
from app.errors import AppError
from app.store.models import Connection, ConnectionStatus, Trigger

_HELP = (
    "Connections: customers' roles. CONNECTION is an id, a role's ARN, an account, or a tenant that"
    " has only one."
)
noun = Noun("connections", help=_HELP)
_CONNECTION = click.argument("connection")
_TENANT = click.option("--tenant", help="Of this tenant alone: its id, reference or name.")
_LIVE = click.Choice(
    [status.value for status in ConnectionStatus if status is not ConnectionStatus.DELETED]
)
_STATUS = click.option(
    "--status", "statuses", multiple=True, type=_LIVE, help="In this status; repeat for several."
)
_AT_ONCE = 8  # concurrent proofs


def _row(one: Connection) -> dict[str, Any]:
    own = row_of(one, "account_id", "role_arn", "permission_set", "status", "why")
    return row_of(one, "id", "tenant_id") | {"tenant": one.tenant.name} | own


def _whole(one: Connection) -> Row:
    proof = one.proof
    return (
        _row(one)
        | row_of(
            one,
            "external_id",
            "issues",
            "suspended",
            "awaiting_approval",
            "sets_to_approve",
            "created_at",
            "verified_at",
        )
        | {
            "proven_until": one.proven_until(services().config.proofs.proof_max_age),
            "next_proof_at": one.due_at,
        }
        | {"verdict": proof and proof.verdict, "checked_at": proof and proof.checked_at}
        | {"checks": proof.checks if proof else [], "warnings": proof.warnings if proof else []}
    )


def _wanted(
    tenant: str | None, statuses: tuple[str, ...], account: str | None = None
) -> Iterator[Connection]:
    wanted, listing = (
        ConnectionFilter(tuple(map(ConnectionStatus, statuses)), account),
        services().listing,
    )
    if tenant is None:
        return every(partial(listing.list_all, operator(), wanted))
    return every(partial(listing.list, operator(), tenant_called(tenant).id, wanted))


_TABLE = columns("id", "tenant", "account_id", "permission_set", "status", "why")


@noun.verb("list", "--tenant acme --status broken", text=_TABLE)
@_TENANT
@_STATUS
@click.option("--account", help="In this AWS account.")
def list_all(tenant: str | None, statuses: tuple[str, ...], account: str | None) -> list[Row]:
    """List connections, newest first."""
    return [_row(one) for one in _wanted(tenant, statuses, account)]


@noun.verb("show", "123456789012")
@_CONNECTION
def show(connection: str) -> Row:
    """Show a connection and its latest proof."""
    return _whole(connection_called(connection))


@noun.verb("verify", "--tenant acme --status broken", text=_TABLE)
@click.argument("connection", required=False)
@_TENANT
@_STATUS
def verify(connection: str | None, tenant: str | None, statuses: tuple[str, ...]) -> list[Row]:
    """Prove one connection now, or several.

    Give a connection, or select several with --tenant and --status.
    """
    if bool(connection) == bool(tenant or statuses):
        raise click.UsageError("Give either a connection, or --tenant or --status.")
    found = [connection_called(connection)] if connection else list(_wanted(tenant, statuses))
    prove, who = services().verification, operator()

    def proven(one: Connection) -> Row:
        try:
            return _row(prove.verify(who, one.tenant_id, one.id, trigger=Trigger.REQUESTED))
        except AppError as error:
            if connection:
                raise
            return _row(one) | {"why": error.detail}

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = pool.map(proven, found)
        with click.progressbar(
            rows, len(found), "Proving", hidden=len(found) < 2, file=sys.stderr
        ) as bar:
            return list(bar)


def _diagnosis(found: dict[str, Any]) -> Iterator[str]:
    permissions = found["permissions"]
    yield from (f"{found['conclusion']}", "", *findings(found["steps"], "outcome", "detail", "fix"))
    for name in ("missing", "unknown", "beyond"):
        if permissions[name]:
            yield from ("", f"{name}:", *table(permissions[name]))


def findings(rows: list[dict[str, Any]], status: str, seen: str, to_do: str) -> Iterator[str]:
    """Return a table of the findings, each with its next step below."""
    lined_up = table([{status: row[status], "name": row["name"], seen: row[seen]} for row in rows])
    yield next(iter(lined_up))
    for row, line in zip(rows, lined_up, strict=True):
        yield line
        if row[to_do]:
            yield f"    → {row[to_do]}"


@noun.verb("diagnose", "acme", text=_diagnosis)
@_CONNECTION
def diagnose(connection: str) -> Row:
    """Show why a connection is not verified or its calls fail.

    For each problem it says who can repair it, and how. It changes nothing.
    """
    found = connection_called(connection)
    return asdict(services().diagnoses.diagnose(operator(), found.tenant_id, found.id))


@noun.verb("suspend", "123456789012 --reason 'strange calls in CloudTrail'")
@_CONNECTION
@REASON
def suspend(connection: str, reason: str) -> Row:
    """Stop issuing for a connection at once."""
    found = connection_called(connection)
    return _row(
        services().connections.suspend(operator(), found.tenant_id, found.id, reason=reason)
    )


@noun.verb("resume", "123456789012 --reason explained")
@_CONNECTION
@REASON
def resume(connection: str, reason: str) -> Row:
    """Resume a suspended connection, and prove it once."""
    found = connection_called(connection)
    return _whole(
        services().connections.resume(operator(), found.tenant_id, found.id, reason=reason)
    )


@noun.verb("approve", "123456789012 --permission-set bucket-sync")
@_CONNECTION
@click.option(
    "--permission-set", help="Approve this set without asking; fail if it does not await approval."
)
def approve(connection: str, permission_set: str | None) -> Row:
    """Approve the permission set of a connection that waits.

    Needed when that set may write and the tenant did not declare the account. It may also be the
    set that its role is to move to. If both wait, name one.
    """
    found = connection_called(connection)
    to_approve = request_to_approve(found, permission_set).permission_set
    if permission_set is None:
        about = row_of(found, "tenant_id", "role_arn", "permission_set", "wanted_permission_set")
        click.echo("\n".join(lines({"tenant": found.tenant.name} | about)), err=True)
        click.confirm(f"Approve {to_approve}?", abort=True, err=True)
    approved = services().approvals.approve(
        operator(), found.tenant_id, found.id, permission_set=to_approve
    )
    return {**_whole(approved), "approved": approved.approved_set}
