"""Every refusal as RFC 9457 problem+json.

A refusal of an authenticated request also goes to the audit log. Its event names a tenant only if
the request was about the principal's own tenant. Only keys that are bound to no tenant see
events without a tenant.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from flask import Flask, Response, current_app, g, request
from marshmallow import fields
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from app import metrics
from app.api.kit.authentication import CONTAINER
from app.api.kit.openapi import example_of
from app.api.kit.schemas import Answer, doc, mapping, number, string
from app.errors import (
    AppError,
    NotFoundError,
    RateLimitedError,
    TryLaterError,
    ValidationFailedError,
)
from app.http.current_request import BODY_KIB
from app.http.error_statuses import NAMED_FIELDS, PROBLEMS, code_of, record_refusal
from app.log import logger
from app.strict_json import JsonObject

_DETAILS = {
    "not_found": NotFoundError().detail,
    "internal_error": "Internal error. Search Deputy's log for the request id.",
    "method_not_allowed": "Method not allowed; see the Allow header.",
    "payload_too_large": f"The body is larger than {BODY_KIB} KiB.",
    "uri_too_long": "The first line, with method and URL, is longer than 4094 bytes.",
    "headers_too_large": (
        "Too large a header: at most 100 fields, 16 KiB in each and 32 KiB in all."
    ),
    "validation_failed": ValidationFailedError().detail,
}


class ProblemOut(Answer):
    """A problem of RFC 9457, with a stable `code`, the request's id, and `errors` by field."""

    OPTIONAL = frozenset({"errors"})

    type = string("urn:deputy:problem:not_found", "A URN that ends in the code.")
    title = string("Not found")
    status = number(404)
    detail = string(_DETAILS["not_found"])
    code = fields.String(
        metadata=doc(
            "not_found",
            "Stable; programs decide by it.",
            component="ProblemCode",
            openapi={"enum": [*PROBLEMS]},
        )
    )
    request_id = string("5f0e7a2b6c184d419c1f6e8a007c3b9d")
    errors = mapping(
        {"name": ["Must not be blank."]},
        "What is wrong, by field of the request.",
        keys=fields.String(),
        values=fields.List(fields.String()),
    )


def examples() -> dict[int, JsonObject]:
    """Return an example of each problem, by status and code."""
    whole = example_of(ProblemOut())
    by_status: dict[int, JsonObject] = {}
    for code, (status, title) in PROBLEMS.items():
        example = whole | _facts(code) | {"detail": f"{title}."}
        if status != 422:
            del example["errors"]
        by_status.setdefault(status, {})[code] = {"value": example}
    return by_status


def _facts(code: str) -> JsonObject:
    status, title = PROBLEMS[code]
    return {"type": f"urn:deputy:problem:{code}", "title": title, "status": status, "code": code}


def register(app: Flask) -> None:
    app.register_error_handler(AppError, _app_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)


def problem(code: str, detail: str, messages: Mapping[str, Any] | None = None) -> Response:
    """Return the response for a code. `messages`: what is wrong, by field of the request."""
    status, _ = PROBLEMS[code]
    body = _facts(code) | {"detail": detail, "request_id": g.request_id}
    if messages:
        body["errors"] = dict(islice(messages.items(), NAMED_FIELDS))
        if len(messages) > NAMED_FIELDS:
            body["detail"] = f"{detail} {len(messages) - NAMED_FIELDS} more are not shown."
    if request.endpoint == CONTAINER:
        body |= {"message": detail, "Code": code, "Message": detail}
    metrics.REFUSALS.labels(code).inc()
    response = Response(json.dumps(body), status, content_type="application/problem+json")
    # For programs that do not see the body, such as curl --fail
    response.headers["X-Deputy-Code"] = code
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="deputy"'
    return response


def problem_of(error: AppError) -> Response:
    """Return the response for an error, with the seconds until a retry may succeed."""
    response = problem(error.code, error.detail, error.errors)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _app_error(error: AppError) -> Response:
    if isinstance(error, RateLimitedError):
        # Not recorded: in a flood each request would cost a durable commit.
        return problem_of(error)
    if isinstance(error, TryLaterError):
        logger.warning("request.try_later", code=error.code, exc_info=error)
    flood = _audit(error.code, error.errors, error.tenant_id, error.connection_id)
    return flood or problem_of(error)


def _http_error(error: HTTPException) -> Response:
    """Return the response for a refusal by Flask, werkzeug or webargs."""
    code = code_of(error)
    messages: dict[str, list[str]] = {}
    # webargs sets `data`
    for of_location in getattr(error, "data", {}).get("messages", {}).values():
        messages |= _flat(of_location)
    if flood := _audit(code, messages):
        return flood
    detail = _DETAILS.get(code) or error.description or "The request is malformed."
    response = problem(code, detail, messages)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _bug(error: Exception) -> Response:
    """Return the response for a bug: it has only the request's id, and the log has the error."""
    logger.error("request.failed", exc_info=error)
    return problem("internal_error", _DETAILS["internal_error"])


def _flat(messages: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield pairs of field.index and [message] from messages as {field: {index: [message]}}."""
    for key, value in messages.items():
        name = path if key == "_schema" else f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name.removesuffix(".") or "body", value


def _audit(
    code: str,
    fields: Mapping[str, Any],
    tenant_id: UUID | None = None,
    connection_id: UUID | None = None,
) -> Response | None:
    """Record the refusal of an authenticated request.

    Returns a 429 to send instead if the principal had too many refusals.
    """
    principal = g.get("principal")
    noun = getattr(current_app.blueprints.get(request.blueprint or ""), "noun", None)
    if principal is None or noun is None:
        return None
    of_path = (request.view_args or {}).get("tenant_id")
    if of_path and of_path == principal.tenant_scope and code != NotFoundError.code:
        tenant_id = of_path
    try:
        record_refusal(noun, code, fields, tenant_id=tenant_id, connection_id=connection_id)
    except RateLimitedError as error:
        # app/limits/refusal_events.py logs one line a minute, not one for each request
        g.logged = True
        return problem_of(error)
    return None
