"""Connections: customers' roles."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import UUID

import click

from app.approvals.approvals import request_to_approve
from app.cli.commands import REASON, Lookup, Noun, Row, confirm, operator, row_of, services, table
from app.cli.names import account, connection_called, tenant_option
from app.connections.listing import ConnectionFilter
from app.errors import AppError
from app.store.keyset import every
from app.store.models import Connection, ConnectionStatus, Trigger

noun = Noun(
    "connections",
    help=(
        "Connections: customers' roles. CONNECTION is an id, a role's ARN, an account, or a tenant"
        " that has only one."
    ),
)
_ONE_CONNECTION = Lookup(connection_called)
_CONNECTION = click.argument("connection", type=_ONE_CONNECTION)
_TENANT = tenant_option(help="Of this tenant alone: its id, reference or name.")
_LIVE = [*map(str, ConnectionStatus)]
_LIVE.remove(ConnectionStatus.DELETED)
_STATUS = click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(_LIVE),
    help="In this status; repeat for several.",
)
_AT_ONCE = 8  # concurrent proofs


_row = partial(
    row_of,
    names="id tenant_id tenant.name account_id role_arn permission_set external_id status why",
)


def _whole(connection: Connection) -> Row:
    row = _row(connection) | row_of(connection, "issues suspended")
    row |= row_of(connection, "awaiting_approval sets_to_approve created_at verified_at")
    row["proven_until"] = connection.proven_until(services.config.proofs.proof_max_age)
    row["next_proof_at"] = connection.due_at
    if connection.proof is None:
        return row | {"verdict": None, "checked_at": None, "checks": [], "warnings": []}
    return row | row_of(connection.proof, "verdict checked_at checks warnings")


def _selected(
    tenant_id: UUID | None, statuses: tuple[str, ...], account: str | None = None
) -> Iterator[Connection]:
    conditions = ConnectionFilter(
        tuple(map(ConnectionStatus, statuses)), account, tenant_id=tenant_id
    )
    return every(services.listing.list, operator(), conditions)


_COLUMNS = "id tenant account_id permission_set status why"


@noun.verb("--tenant acme --status broken", columns=_COLUMNS)
@_TENANT
@_STATUS
@click.option("--account", type=account, help="In this AWS account.")
def list_command(**conditions: Any) -> list[Row]:
    """List connections, newest first."""
    return [*map(_row, _selected(**conditions))]


@noun.verb("123456789012")
@_CONNECTION
def show(connection: Connection) -> Row:
    """Show a connection and its latest proof."""
    return _whole(connection)


@noun.verb(
    "--tenant acme --status broken", columns="id tenant account_id status verdict why", changes=True
)
@click.argument("connection", required=False, type=_ONE_CONNECTION)
@_TENANT
@_STATUS
def verify(
    connection: Connection | None, tenant_id: UUID | None, statuses: tuple[str, ...]
) -> list[Row]:
    """Prove one connection now, or several.

    Give a connection, or select several with --tenant and --status. A proof that fails is no error
    of this command: read `verdict`.
    """
    if bool(connection) == bool(tenant_id or statuses):
        raise click.UsageError("Give either a connection, or --tenant or --status.")
    verification, who = services.verification, operator()

    def prove(selected: Connection) -> Row:
        try:
            proven = verification.verify(
                who, selected.tenant_id, selected.id, trigger=Trigger.REQUESTED
            )
        except AppError as error:
            if connection:
                raise
            return _row(selected) | {"verdict": None, "why": error.detail}
        return _row(proven) | {"verdict": proven.proof and proven.proof.verdict}

    connections = [connection] if connection else [*_selected(tenant_id, statuses)]
    number = len(connections)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = pool.map(prove, connections)
        with click.progressbar(
            rows, number, "Proving", hidden=number < 2, file=sys.stderr
        ) as progress:
            return list(progress)


def _describe_diagnosis(diagnosis: Row) -> Iterator[str]:
    yield diagnosis["conclusion"]
    yield ""
    yield from describe_findings(diagnosis["steps"], "outcome", "detail", "fix")
    rights = diagnosis["permissions"]
    unknown = [right for right in rights["unknown"] if right["cause"] != "not_seen"]
    unread = len(rights["unknown"]) - len(unknown)
    rights = rights | {"unknown": unknown}
    for name in ("missing", "unknown", "beyond"):
        if rights[name]:
            yield from ("", f"{name}:", *table(rights[name]))
    if unread:
        yield from ("", f"{unread} rights were not read; --json lists them.")


def describe_findings(rows: list[Row], status: str, observation: str, to_do: str) -> Iterator[str]:
    """Yield the lines of a table of findings, with the next step below each finding."""
    header, *table_rows = table(rows, (status, "name", observation))
    yield header
    for row, line in zip(rows, table_rows, strict=True):
        yield line
        if row[to_do]:
            yield f"    → {row[to_do]}"


@noun.verb("acme", text=_describe_diagnosis, changes=True)
@_CONNECTION
def diagnose(connection: Connection) -> Row:
    """Show why a connection is not verified or its calls fail.

    For each problem it says who can repair it, and how. It changes nothing.
    """
    return asdict(services.diagnoses.diagnose(operator(), connection.tenant_id, connection.id))


@noun.verb("123456789012 --reason 'strange calls in CloudTrail'", changes=True)
@_CONNECTION
@REASON
def suspend(connection: Connection, reason: str) -> Row:
    """Stop issuing for a connection at once."""
    return _row(
        services.connections.suspend(operator(), connection.tenant_id, connection.id, reason=reason)
    )


@noun.verb("123456789012 --reason explained", changes=True)
@_CONNECTION
@REASON
def resume(connection: Connection, reason: str) -> Row:
    """Resume a suspended connection, and prove it once."""
    return _whole(
        services.connections.resume(operator(), connection.tenant_id, connection.id, reason=reason)
    )


@noun.verb("123456789012 --permission-set bucket-sync", changes=True)
@_CONNECTION
@click.option(
    "--permission-set", help="Approve this set without asking; fail if it does not await approval."
)
def approve(connection: Connection, permission_set: str | None) -> Row:
    """Approve a permission set for a connection.

    Approval is needed when the set may write and the tenant did not declare the account. The set
    may be the connection's own, or the one that its role is to move to. If both wait, name one.
    """
    to_approve = request_to_approve(connection, permission_set).permission_set
    if permission_set is None:
        names = "tenant.name tenant_id role_arn permission_set wanted_permission_set"
        confirm(row_of(connection, names), f"Approve {to_approve}?")
    approved = services.approvals.approve(
        operator(), connection.tenant_id, connection.id, permission_set=to_approve
    )
    return {**_whole(approved), "approved": approved.approved_set}
