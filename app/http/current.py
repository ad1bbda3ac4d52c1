"""The services and the caller of the request that is being served."""

from typing import cast

from flask import current_app, g

from app.identity import ApiKeyPrincipal
from app.services import Services


def services() -> Services:
    return cast("Services", current_app.extensions["deputy"])


def caller() -> ApiKeyPrincipal:
    """Return the caller. Only views behind `requires` have one."""
    return cast("ApiKeyPrincipal", g.caller)


def changing() -> ApiKeyPrincipal:
    """Return the caller, for one change that counts against its tenant's quota.

    Such a change makes or revives something that can be revoked.
    """
    return services().quotas.limiting_changes(caller())
