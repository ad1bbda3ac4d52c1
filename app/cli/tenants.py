"""Tenants: the vendor's customers."""

from functools import partial
from typing import Any
from uuid import UUID

import click

from app.cli.commands import REASON, Lookup, Noun, Row, confirm, operator, row_of, services, text
from app.cli.names import TENANT, account, live_or_deleted_tenant
from app.store.keyset import every
from app.store.models import Tenant, TenantStatus
from app.tenants.tenants import TenantFilter

noun = Noun(
    "tenants", help="Tenants: the vendor's customers. TENANT is an id, a reference or a name."
)


_row = partial(row_of, names="id reference name status suspended external_id created_at")


def _allowed(tenant: Tenant) -> Row:
    return {"accounts": "any" if tenant.accounts is None else tenant.accounts}


@noun.verb("--name acm", columns="id reference name status created_at")
@click.option("--name", help="How the name begins; case does not matter.")
@click.option("--status", type=click.Choice(["active", "suspended"]))
@click.option("--deleted", is_flag=True, help="List deleted tenants instead of live ones.")
def list_command(name: str | None, status: str | None, *, deleted: bool) -> list[Row]:
    """List tenants, newest first."""
    if deleted and status:
        raise click.UsageError("Give either --status or --deleted.")
    statuses = (TenantStatus(status),) if status else ()
    conditions = TenantFilter(name=name, statuses=statuses, deleted=deleted)
    return [*map(_row, every(services.tenants.list, operator(), conditions))]


@noun.verb("customer-42")
@click.argument("tenant", metavar="TENANT", type=Lookup(live_or_deleted_tenant))
def show(tenant: Tenant) -> Row:
    """Show a tenant, and its connections by status.

    A deleted tenant is found too, if no live one matches; it is shown with its External IDs.
    """
    if tenant.deleted_at:
        external_ids = services.tenants.external_ids(tenant.id)
        return row_of(tenant, "id reference name status created_at deleted_at") | {
            "external_ids": external_ids
        }
    connections = services.listing.summary(operator(), tenant.id)
    return _row(tenant) | _allowed(tenant) | {"connections": connections}


@noun.verb("--name 'Acme Ltd' --reference customer-42", changes=True)
@click.option("--name", required=True, type=text, help="The customer's name.")
@click.option("--reference", type=text, help="Your own id for it; unique.")
@click.option(
    "--account",
    "accounts",
    multiple=True,
    type=account,
    help="Allow roles in this account alone; repeat for several (default: any account).",
)
def create(accounts: tuple[str, ...], **description: Any) -> Row:
    """Create a tenant, with an External ID of its own.

    Then make its onboarding link: links create.
    """
    tenant = services.tenants.create(operator(), accounts=accounts or None, **description)
    return _row(tenant) | _allowed(tenant)


@noun.verb("acme --reason 'asked by the customer, ticket 123'", changes=True)
@TENANT
@REASON
def suspend(tenant_id: UUID, reason: str) -> Row:
    """Suspend a tenant. It can be resumed.

    From now on no credentials are issued for it, and none of its roles is proven. Its sessions work
    until they expire: `audit alive` lists them.
    """
    return _row(services.tenants.suspend(operator(), tenant_id, reason=reason))


@noun.verb("acme --reason 'ticket 123 closed'", changes=True)
@TENANT
@REASON
def resume(tenant_id: UUID, reason: str) -> Row:
    """Resume a suspended tenant."""
    return _row(services.tenants.resume(operator(), tenant_id, reason=reason))


@noun.verb("acme --only 123456789012 --only 210987654321", changes=True)
@TENANT
@click.option("--only", multiple=True, type=account, help="Allow this account; repeat for several.")
@click.option("--any", "any_account", is_flag=True, help="Allow every account.")
def accounts(tenant_id: UUID, only: tuple[str, ...], *, any_account: bool) -> Row:
    """Show or replace the accounts that a tenant may use."""
    if only and any_account:
        raise click.UsageError("Give either --only or --any.")
    if only or any_account:
        services.tenants.change(operator(), tenant_id, {"accounts": only or None})
    return {"tenant_id": tenant_id} | _allowed(services.tenants.get(operator(), tenant_id))


@noun.verb("acme", changes=True)
@TENANT
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(tenant_id: UUID, *, yes: bool) -> str:
    """Delete a tenant for good, with its connections.

    Issuing stops at once. Keys that are bound to the tenant are revoked, and its External ID is
    never used again. Its sessions work until they expire: `audit alive` with its id lists them. To
    stop a customer for a while, suspend it.
    """
    if not yes:
        tenant = services.tenants.get(operator(), tenant_id)
        about = row_of(tenant, "id reference name")
        about["connections"] = sum(services.listing.summary(operator(), tenant_id).values())
        confirm(about, "Delete this tenant? It can't be undone.")
    services.tenants.delete(operator(), tenant_id)
    return f"Deleted: {tenant_id}"
