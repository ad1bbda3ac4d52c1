"""What customers' stacks may say of themselves."""

from uuid import UUID

import click
from flask.cli import AppGroup

from app.cli.operator import in_one_line, operator, services

registrations = AppGroup("registrations", help="What customers' stacks may say of themselves.")


@registrations.command("void")
@click.argument("tenant_id", type=click.UUID)
def void(tenant_id: UUID) -> None:
    """Void every registration token that a tenant was given so far, when one is in the wrong hands.

    Launch links and stacks hold the old token. A stack that is created with it fails, an organisation's stack for each
    new account too. Updating and deleting a stack still succeeds, and registers nothing; connections stay as they are.

    An onboarding link that is in the wrong hands needs no more than to be revoked: that voids the token on its page.
    Show customers their kit again (reload the page, send the new link). A stack or StackSet that is there takes the new
    token as its parameter RegistrationToken.
    """
    with in_one_line(absent="There is no such tenant."):
        services().tenants.void_registrations(operator(), tenant_id)
    click.echo(
        "The registration tokens that this tenant was given so far are void. Kits must be shown again: what is launched"
        " with an old one fails.\n"
        "Stacks that run with an old token stay, and so do connections. They can be updated and deleted, and register"
        " nothing until they are given the new one as RegistrationToken."
    )
