"""Onboarding links, which the vendor sends to a customer's administrator."""

from functools import partial
from uuid import UUID

import click

from app.cli.finding import TENANT
from app.cli.operator import Noun, Row, every, operator, row_of, services
from app.onboarding.page_links import LINK_DAYS, LINK_DAYS_MAX
from app.settings.checks import DAY
from app.store.models import Tenant

noun = Noun("links", help="Onboarding links. TENANT is an id, a reference or a name.")
_DAYS = click.IntRange(1, LINK_DAYS_MAX)


@noun.verb("acme")
@TENANT
def list_command(tenant: Tenant) -> list[Row]:
    """List a tenant's onboarding links, without their URLs."""
    return [
        row_of(link, "id permission_set region created_at expires_at revoked_at")
        for link in every(partial(services().links.list, operator(), tenant.id))
    ]


@noun.verb("acme --days 7")
@TENANT
@click.option("--permission-set", help="The permission set that the page asks for.")
@click.option("--region", help="The region that the page offers first.")
@click.option("--days", type=_DAYS, default=LINK_DAYS, help="Days until it expires.")
def create(tenant: Tenant, permission_set: str | None, region: str | None, days: int) -> Row:
    """Create an onboarding link and print its URL, once.

    The URL alone opens the page: give it only to the customer's administrator.
    """
    link, url = services().links.create(
        operator(), tenant.id, permission_set=permission_set, region=region, expires_in=days * DAY
    )
    return {"id": link.id, "url": url, "expires_at": link.expires_at}


@noun.verb("acme 019c1f6e-8a00-7c3b-9d41-5f0e7a2b6c18")
@TENANT
@click.argument("link_id", type=click.UUID)
def revoke(tenant: Tenant, link_id: UUID) -> str:
    """Revoke an onboarding link.

    That also voids the registration token on its page.
    """
    services().links.revoke(operator(), tenant.id, link_id)
    return "Revoked."
