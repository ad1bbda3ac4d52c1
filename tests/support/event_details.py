"""A check that each event of a test has the details and the outcome of its action."""

from collections.abc import Callable
from functools import cache
from typing import Any

import orjson
from openapi_schema_validator import OAS31Validator

from app.audit import Event
from app.audit.events import Action
from app.store.database import as_json

Row = Callable[[Event], dict[str, Any]]


@cache
def _validator(action):
    return OAS31Validator(action.schema | {"additionalProperties": False})


def mistakes_in(event):
    """Return what its action does not allow. A text is the action of an event of a test's own."""
    if not isinstance(event.action, Action):
        return []
    details = orjson.loads(as_json(event.details))
    messages = [error.message for error in _validator(event.action).iter_errors(details)]
    allowed = event.action.outcomes
    return messages if event.outcome in allowed else [*messages, f"{event.outcome}: not {allowed}"]


def checking(row):
    """Return `Event.row`, which refuses an event with mistakes."""

    def checked(event):
        assert mistakes_in(event) == [], event
        return row(event)

    return checked
