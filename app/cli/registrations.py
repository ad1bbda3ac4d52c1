"""Registrations: the messages of customers' stacks."""

from app.cli.finding import TENANT
from app.cli.operator import Noun, operator, services
from app.store.models import Tenant

noun = Noun("registrations", help="Registrations: the messages of customers' stacks.")


@noun.verb("acme")
@TENANT
def void(tenant: Tenant) -> str:
    """Void a tenant's registration tokens.

    Use it when one of them may have leaked.

    Launch links and stacks contain the old token. Creating a stack with it fails, and so does
    adding an account to an organisation's StackSet. Updating and deleting a stack still succeed,
    but register nothing. Connections stay.

    Show the customer the kit again: reload the page, or send the new link. Give existing stacks and
    StackSets the new token as their parameter RegistrationToken.

    If an onboarding link leaked, revoke the link instead: that also voids the token on its page.
    """
    services().tenants.void_registrations(operator(), tenant.id)
    return (
        "The registration tokens that this tenant was given so far are void. Show the customer the"
        " kit again: stacks that are created with an old token fail.\nConnections stay. Existing"
        " stacks stay too, but register nothing until you give them the new token as"
        " RegistrationToken."
    )
