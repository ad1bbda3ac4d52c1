"""What a request goes with: the services of its application, and its caller."""

from typing import cast

from flask import current_app, g

from app.access.callers import Caller
from app.services import Services


def services() -> Services:
    return cast("Services", current_app.extensions["deputy"])


def caller() -> Caller:
    """Who calls. Only views behind `requires` have one."""
    return cast("Caller", g.caller)
