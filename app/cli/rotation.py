"""Rotations: a tenant's External ID is replaced by another."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

import click

from app.cli.commands import REASON, Noun, Row, operator, services
from app.cli.names import TENANT
from app.errors import NotFoundError

noun = Noun("rotation", help="Rotations of External IDs. TENANT is an id, a reference or a name.")


@noun.verb("acme")
@TENANT
def show(tenant_id: UUID) -> Row:
    """Show a tenant's latest rotation, even if it has ended."""
    rotation = services.rotations.get(operator(), tenant_id)
    if rotation is None:
        raise NotFoundError
    return asdict(rotation)


@noun.verb("acme --reason 'the External ID was published'", changes=True)
@TENANT
@REASON
@click.option("--emergency", is_flag=True, help="Stop issuing with the old External ID at once.")
def open_command(tenant_id: UUID, **options: Any) -> Row:
    """Start a rotation: make a tenant's next External ID.

    With --emergency, a rotation that is open already becomes an emergency.
    """
    rotation, _ = services.rotations.start(operator(), tenant_id, **options)
    return asdict(rotation)


@noun.verb("acme", changes=True)
@TENANT
def complete(tenant_id: UUID) -> Row:
    """Make the next External ID current.

    Fails until every verified connection has switched to it.
    """
    return asdict(services.rotations.complete(operator(), tenant_id))


@noun.verb("acme", changes=True)
@TENANT
def abandon(tenant_id: UUID) -> str:
    """Abandon a rotation. Fails once a connection has switched."""
    services.rotations.abandon(operator(), tenant_id)
    return "Abandoned. The External ID stays as it was."
