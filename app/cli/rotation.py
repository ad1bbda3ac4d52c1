"""Rotations: a tenant's External ID is replaced by another."""

from dataclasses import asdict

import click

from app.cli.finding import tenant_called
from app.cli.operator import REASON, TENANT, Noun, Row, operator, services
from app.errors import NotFoundError

noun = Noun("rotation", help="Rotations of External IDs. TENANT is an id, a reference or a name.")


@noun.verb("show", "acme")
@TENANT
def show(tenant: str) -> Row:
    """Show a tenant's latest rotation, even if it has ended."""
    found = services().rotations.get(operator(), tenant_called(tenant).id)
    if found is None:
        raise NotFoundError
    return asdict(found)


@noun.verb("open", "acme --reason 'the External ID was published'")
@TENANT
@REASON
@click.option("--emergency", is_flag=True, help="Stop issuing with the old External ID at once.")
def open_(tenant: str, reason: str, *, emergency: bool) -> Row:
    """Make a tenant's next External ID.

    With --emergency, a rotation that is open already becomes an emergency.
    """
    started, _ = services().rotations.start(
        operator(), tenant_called(tenant).id, reason=reason, emergency=emergency
    )
    return asdict(started)


@noun.verb("complete", "acme")
@TENANT
def complete(tenant: str) -> Row:
    """Make the next External ID current.

    Fails until every verified connection has switched to it.
    """
    return asdict(services().rotations.complete(operator(), tenant_called(tenant).id))


@noun.verb("abandon", "acme")
@TENANT
def abandon(tenant: str) -> str:
    """Abandon a rotation. Fails once a connection has switched."""
    services().rotations.abandon(operator(), tenant_called(tenant).id)
    return "Abandoned. The External ID stays as it was."
