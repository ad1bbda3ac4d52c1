"""The services and the caller of the request that is being served."""

from typing import cast

from flask import current_app, g

from app.access.callers import Caller
from app.services import Services


def services() -> Services:
    return cast("Services", current_app.extensions["deputy"])


def caller() -> Caller:
    """Only views behind `requires` have one."""
    return cast("Caller", g.caller)


def changing() -> Caller:
    """The caller, for one change that makes or revives: it counts against its tenant's quota."""
    return services().quotas.counting_changes(caller())
