"""Tenants: the vendor's customers."""

import re
from functools import partial
from typing import Any

import click

from app.cli.finding import tenant_called
from app.cli.operator import (
    REASON,
    TENANT,
    Noun,
    Row,
    a_line,
    columns,
    every,
    lines,
    operator,
    row_of,
    services,
)
from app.ids import ACCOUNT_ID_PATTERN
from app.store.models import Tenant, TenantStatus
from app.tenants.tenants import TenantFilter

noun = Noun(
    "tenants", help="Tenants: the vendor's customers. TENANT is an id, a reference or a name."
)


def _row(tenant: Tenant) -> dict[str, Any]:
    return row_of(
        tenant, "id", "reference", "name", "status", "suspended", "external_id", "created_at"
    )


@noun.verb("list", "--name acm", text=columns("id", "reference", "name", "status", "created_at"))
@click.option("--name", help="How the name begins; case does not matter.")
@click.option("--status", type=click.Choice(["active", "suspended"]))
def list_all(name: str | None, status: str | None) -> list[Row]:
    """List tenants, newest first."""
    wanted = TenantFilter(name=name, statuses=(TenantStatus(status),) if status else ())
    return [_row(tenant) for tenant in every(partial(services().tenants.list, operator(), wanted))]


@noun.verb("show", "customer-42")
@TENANT
def show(tenant: str) -> Row:
    """Show a tenant, and its connections by status."""
    found = services().tenants.get(operator(), tenant_called(tenant).id)
    counts = services().listing.summary(operator(), found.id)
    return _row(found) | {
        "accounts": found.accounts,
        "connections": {status.value: n for status, n in counts.items()},
    }


def _accounts(
    _context: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    if not all(re.fullmatch(ACCOUNT_ID_PATTERN, account, re.ASCII) for account in given):
        raise click.BadParameter("must be AWS account ids of 12 digits.")
    return given


@noun.verb("create", "--name 'Acme Ltd' --reference customer-42")
@click.option("--name", required=True, callback=a_line, help="The customer's name.")
@click.option("--reference", callback=a_line, help="Your own id for it; unique.")
@click.option(
    "--account",
    "accounts",
    multiple=True,
    callback=_accounts,
    help="Allow roles in this account alone; repeat for several (default: any account).",
)
def create(name: str, reference: str | None, accounts: tuple[str, ...]) -> Row:
    """Create a tenant, with an External ID of its own.

    Then make its onboarding link: links create.
    """
    tenant = services().tenants.create(
        operator(), name=name, reference=reference, accounts=list(accounts) or None
    )
    return _row(tenant) | {"accounts": "any" if tenant.accounts is None else tenant.accounts}


@noun.verb("suspend", "acme --reason 'asked by the customer, ticket 123'")
@TENANT
@REASON
def suspend(tenant: str, reason: str) -> Row:
    """Suspend a tenant. It can be resumed.

    From now on no credentials are issued for it, and none of its roles is proven. `audit alive`
    lists the sessions that it has until they expire.
    """
    return _row(services().tenants.suspend(operator(), tenant_called(tenant).id, reason=reason))


@noun.verb("resume", "acme --reason 'ticket 123 closed'")
@TENANT
@REASON
def resume(tenant: str, reason: str) -> Row:
    """Resume a suspended tenant."""
    return _row(services().tenants.resume(operator(), tenant_called(tenant).id, reason=reason))


@noun.verb("accounts", "acme --only 123456789012 --only 210987654321")
@TENANT
@click.option(
    "--only", multiple=True, callback=_accounts, help="Allow this account; repeat for several."
)
@click.option("--any", "any_account", is_flag=True, help="Allow every account.")
def accounts(tenant: str, only: tuple[str, ...], *, any_account: bool) -> Row:
    """Show or replace the accounts that a tenant may use."""
    if only and any_account:
        raise click.UsageError("Give either --only or --any.")
    found = tenant_called(tenant).id
    if only or any_account:
        services().tenants.change(
            operator(), found, {"accounts": None if any_account else list(only)}
        )
    allowed = services().tenants.get(operator(), found).accounts
    return {"tenant_id": found, "accounts": "any" if allowed is None else allowed}


@noun.verb("delete", "acme")
@TENANT
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(tenant: str, *, yes: bool) -> str:
    """Delete a tenant for good, with its connections.

    Issuing stops at once. The keys that are bound to it are revoked, and its External ID is never
    used again. Sessions that it has end by themselves: `audit alive` with its id lists them. To
    stop a customer for a while, suspend it.
    """
    row = tenant_called(tenant)
    if not yes:
        counts = services().listing.summary(operator(), row.id)
        about = row_of(row, "id", "reference", "name") | {"connections": sum(counts.values())}
        click.echo("\n".join(lines(about)), err=True)
        click.confirm("Delete this tenant? It can't be undone.", abort=True, err=True)
    services().tenants.delete(operator(), row.id)
    return f"Deleted: {row.id}"
