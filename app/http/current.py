"""The services and the principal of the request that is being served."""

from typing import cast

from flask import current_app, g
from werkzeug.local import LocalProxy

from app.identity import ApiKeyPrincipal
from app.services import Services

services = cast("Services", LocalProxy(lambda: current_app.extensions["deputy"]))


def principal() -> ApiKeyPrincipal:
    """Return the principal. Only views behind `requires` have one."""
    return cast("ApiKeyPrincipal", g.principal)


def changing() -> ApiKeyPrincipal:
    """Return the principal for one change, which counts against its tenant's quota.

    Such a change makes or revives something that can be revoked.
    """
    return services.quotas.limiting_changes(principal())
