"""Onboarding: links for customers' administrators, and registrations of customers' stacks."""

from typing import Any
from uuid import UUID

import click

from app.cli.commands import Noun, Row, operator, row_of, services
from app.cli.names import TENANT
from app.onboarding.page_links import LINK_DAYS, LINK_DAYS_MAX
from app.settings.valid_values import DAY
from app.store.keyset import every

links = Noun("links", help="Onboarding links. TENANT is an id, a reference or a name.")
registrations = Noun("registrations", help="Registrations: the messages of customers' stacks.")
_DAYS = click.IntRange(1, LINK_DAYS_MAX)


@links.verb("acme")
@TENANT
def list_command(tenant_id: UUID) -> list[Row]:
    """List a tenant's onboarding links, without their URLs."""
    return [
        row_of(link, "id permission_set region created_at opened_at expires_at revoked_at")
        for link in every(services.links.list, operator(), tenant_id)
    ]


@links.verb("acme --days 7", changes=True)
@TENANT
@click.option("--permission-set", help="The permission set that the page asks for.")
@click.option("--region", help="The region that the page offers first.")
@click.option("--return-url", help="Where the page leads back to once the role is connected.")
@click.option("--days", type=_DAYS, default=LINK_DAYS, help="Days until it expires.")
def create(tenant_id: UUID, days: int, **options: Any) -> Row:
    """Create an onboarding link and print its URL, once.

    The URL alone opens the page: give it only to the customer's administrator.
    """
    link, url = services.links.create(operator(), tenant_id, expires_in=days * DAY, **options)
    return {"id": link.id, "url": url, "expires_at": link.expires_at}


@links.verb("acme 019c1f6e-8a00-7c3b-9d41-5f0e7a2b6c18", changes=True)
@TENANT
@click.argument("link_id", type=click.UUID)
def revoke(tenant_id: UUID, link_id: UUID) -> str:
    """Revoke an onboarding link.

    That also voids the registration token on its page.
    """
    services.links.revoke(operator(), tenant_id, link_id)
    return "Revoked."


@registrations.verb("acme", changes=True)
@TENANT
def void(tenant_id: UUID) -> str:
    """Void a tenant's registration tokens.

    Use it when one of them may have leaked.

    Launch links and stacks contain the old token. Creating a stack with it fails, and so does
    adding an account to an organisation's StackSet. Updating and deleting a stack still succeed,
    but register nothing. Connections stay.

    Show the customer the kit again: reload the page, or send the new link. Give existing stacks and
    StackSets the new token as their parameter RegistrationToken.

    If an onboarding link leaked, revoke the link instead: that also voids the token on its page.
    """
    services.tenants.void_registrations(operator(), tenant_id)
    return (
        "The registration tokens that this tenant was given so far are void. Show the customer the"
        " kit again: stacks that are created with an old token fail.\nConnections stay. Existing"
        " stacks stay too, but register nothing until you give them the new token as"
        " RegistrationToken."
    )
