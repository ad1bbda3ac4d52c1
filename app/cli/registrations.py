"""Registrations: the messages of customers' stacks."""

from app.cli.finding import tenant_called
from app.cli.operator import TENANT, Noun, operator, services

noun = Noun("registrations", help="Registrations: the messages of customers' stacks.")


@noun.verb("void", "acme")
@TENANT
def void(tenant: str) -> str:
    """Void a tenant's registration tokens.

    Use it when one of them may have leaked.

    Launch links and stacks contain the old token. Creating a stack with it fails, and so does
    adding an account to an organisation's StackSet. Updating and deleting a stack still succeed,
    but register nothing. Connections stay.

    Show the customer the kit again: reload the page, or send the new link. Give existing stacks and
    StackSets the new token as their parameter RegistrationToken.

    If an onboarding link leaked, revoke the link instead: that also voids the token on its page.
    """
    services().tenants.void_registrations(operator(), tenant_called(tenant).id)
    return (
        "The registration tokens that this tenant was given so far are void. Show the customer the"
        " kit again: stacks that are created with an old token fail.\nConnections stay. Existing"
        " stacks stay too, but register nothing until you give them the new token as"
        " RegistrationToken."
    )
