"""The audit events of refused requests."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import g, request

from app.audit import actions
from app.audit.details import Refusal
from app.audit.events import Outcome
from app.errors import StoreUnavailableError
from app.http.current_request import services
from app.http.statuses import PROBLEMS
from app.log import logger

NAMED_FIELDS = 20  # most invalid fields that an answer and its event name; others are counted


def record_refusal(
    noun: str,
    code: str,
    fields: Mapping[str, Any],
    *,
    tenant_id: UUID | None,
    connection_id: UUID | None = None,
) -> None:
    """Record the refusal of the principal's request. `noun`: what the request was about.

    While the database is unavailable, nothing is recorded and the answer stays the same. Raises
    RateLimitedError when the principal is refused too often.
    """
    if code == StoreUnavailableError.code:
        return
    # Ids and permission sets' names. Other parts of a path may be secret, such as a link's token.
    path = {
        name: str(value)
        for name, value in (request.view_args or {}).items()
        if name == "name" or isinstance(value, UUID)
    }
    # The name of an unknown field is the client's text, which may be long or secret.
    names = {
        "(unknown)" if "Unknown field." in messages else name for name, messages in fields.items()
    }
    details: Refusal = {
        "code": code,
        "method": request.method,
        "route": str(request.url_rule),
        "path": path,
        "fields": sorted(names)[:NAMED_FIELDS],
    }
    if len(names) > NAMED_FIELDS:
        details["more_fields"] = len(names) - NAMED_FIELDS
    outcome: Outcome = "failed" if PROBLEMS[code][0] >= 500 else "refused"
    event = actions.REFUSALS[noun].event(
        g.principal.actor,
        details,
        outcome=outcome,
        tenant_id=tenant_id,
        connection_id=connection_id,
    )
    try:
        services.refusals.record(g.principal.tenant_scope, event)
    except StoreUnavailableError:
        logger.exception("audit.refusal_not_recorded", code=code)
