"""The only mapping of errors to HTTP statuses and titles, and the audit events of refusals."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import g, request
from werkzeug.exceptions import HTTPException

from app.audit import actions
from app.audit.details import Refusal
from app.audit.events import Outcome
from app.errors import StoreUnavailableError
from app.http.current_request import services
from app.log import logger

NAMED_FIELDS = 20  # most invalid fields that an answer and its event name; others are counted
# Status and title by code. It has the code of every AppError (a test checks that), and the codes
# that only HTTP has.
PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed_request": (400, "Malformed request"),
    "unauthenticated": (401, "No valid API key"),
    "forbidden": (403, "Not allowed with this API key"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "conflict": (409, "Conflict"),
    "idempotency_key_in_use": (409, "Idempotency-Key in use"),
    "connection_not_verified": (409, "Connection not verified"),
    "suspended": (409, "Suspended"),
    "external_id_withdrawn": (409, "External ID withdrawn"),
    "role_refused": (409, "Role refused"),
    "payload_too_large": (413, "Payload too large"),
    "uri_too_long": (414, "URI too long"),
    "unsupported_media_type": (415, "Unsupported media type"),
    "validation_failed": (422, "Validation failed"),
    "idempotency_key_reused": (422, "Idempotency-Key reused"),
    "role_not_allowed": (422, "Role not allowed"),
    "rate_limited": (429, "Too many requests"),
    "headers_too_large": (431, "Headers too large"),
    "internal_error": (500, "Internal error"),
    "unavailable": (503, "Unavailable"),
    "aws_unavailable": (503, "AWS unavailable"),
    "proof_expired": (503, "Proof expired"),
}
# The first code of each status
_CODES = {status: code for code, (status, _) in reversed(PROBLEMS.items())}


def code_of(error: HTTPException) -> str:
    status = error.code or 500
    return _CODES.get(status, "malformed_request" if status < 500 else "internal_error")


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
