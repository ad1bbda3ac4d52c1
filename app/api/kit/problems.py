"""Every refusal as RFC 9457 problem+json.

A refusal of an authenticated request also goes to the audit log. Its event names a tenant only if
the request was about the caller's own tenant. All others are shown only to keys that are bound to
no tenant.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from flask import Flask, Response, current_app, g, request
from marshmallow import fields
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from app import errors, metrics
from app.api.kit.blueprint import Blueprint
from app.api.kit.fields import doc, number, string
from app.api.kit.openapi import example_of
from app.api.kit.parsing import BODY_KIB
from app.api.kit.schemas import Answer
from app.errors import AppError, NotFoundError
from app.http.refusals import NAMED_FIELDS, PROBLEMS, code_of, record_refusal
from app.log import logger

_INTERNAL = "Internal error. Search Deputy's log for the request id."
_DETAILS = {
    "not_found": errors.NotFoundError().detail,
    "method_not_allowed": "Method not allowed; see the Allow header.",
    "payload_too_large": f"The body is larger than {BODY_KIB} KiB.",
    "uri_too_long": "Method and URL are longer than 4094 bytes together.",
    "headers_too_large": (
        "Too large a header: at most 100 fields, 16 KiB in each and 32 KiB in all."
    ),
    "validation_failed": errors.ValidationFailedError({}).detail,
}
# SDKs read this endpoint's refusals: Java and Go read `code` and `message`, JavaScript reads `Code`
# and `Message`.
_CONTAINER = "credentials.container_credentials"
CODE_HEADER = "X-Deputy-Code"  # for programs that see no body, such as curl --fail
_CODE = doc(
    "not_found",
    "Stable; programs decide by it.",
    component="ProblemCode",
    openapi={"enum": [*PROBLEMS]},
)
_FIELDS = doc({"name": ["Must not be blank."]}, "What is wrong, by field of the request.")


class ProblemSchema(Answer):
    """A problem of RFC 9457, with a stable `code`, the request's id, and `errors` by field."""

    OPTIONAL = frozenset({"errors"})

    type = string("urn:deputy:problem:not_found", "A URN that ends in the code.")
    title = string("Not found")
    status = number(404)
    detail = string(_DETAILS["not_found"])
    code = fields.String(metadata=_CODE)
    request_id = string("5f0e7a2b6c184d419c1f6e8a007c3b9d")
    errors = fields.Dict(
        keys=fields.String(), values=fields.List(fields.String()), metadata=_FIELDS
    )


def examples(status: int) -> dict[str, Any]:
    """Return an example of each problem that has this status, by code."""
    whole = example_of(ProblemSchema(exclude=() if status == 422 else ("errors",)))
    titles = {code: title for code, (of_code, title) in PROBLEMS.items() if of_code == status}
    return {
        code: {"value": whole | _facts(code) | {"detail": f"{title}."}}
        for code, title in titles.items()
    }


def _facts(code: str) -> dict[str, Any]:
    status, title = PROBLEMS[code]
    return {"type": f"urn:deputy:problem:{code}", "title": title, "status": status, "code": code}


def register(app: Flask) -> None:
    app.register_error_handler(AppError, _app_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)


def problem(
    code: str,
    detail: str,
    problems: Mapping[str, Any] | None = None,
    retry_after: int | None = None,
) -> Response:
    """Return the response for a code. `problems`: the messages by field."""
    status, _ = PROBLEMS[code]
    body = _facts(code) | {"detail": detail, "request_id": g.request_id}
    if problems:
        body["errors"] = dict(islice(problems.items(), NAMED_FIELDS))
    if problems and (more := len(problems) - NAMED_FIELDS) > 0:
        body["detail"] = f"{detail} {more} more are not shown."
    if request.endpoint == _CONTAINER:
        body |= {"message": detail, "Code": code, "Message": detail}
    metrics.REFUSALS.labels(code).inc()
    response = Response(json.dumps(body), status, content_type="application/problem+json")
    response.headers[CODE_HEADER] = code
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="deputy"'
    return response


def _app_error(error: AppError) -> Response:
    if isinstance(error, errors.RateLimitedError):
        # Not recorded: in a flood each request would cost a durable commit.
        return _problem_of(error)
    if isinstance(error, errors.TryLaterError):
        logger.warning("request.try_later", code=error.code, exc_info=error)
    flood = _audit(
        error.code,
        tenant_id=error.tenant_id,
        connection_id=error.connection_id,
        fields=error.errors,
    )
    return flood or _problem_of(error)


def _problem_of(error: AppError) -> Response:
    return problem(error.code, error.detail, error.errors, error.retry_after)


def _http_error(error: HTTPException) -> Response:
    """Return the response for a refusal by Flask, werkzeug or webargs."""
    code = code_of(error)
    if code == "internal_error":
        return problem(code, _INTERNAL)
    messages = dict(_flat(getattr(error, "data", {}).get("messages", {})))
    if flood := _audit(code, tenant_id=None, connection_id=None, fields=messages):
        return flood
    response = problem(
        code, _DETAILS.get(code) or error.description or "The request is malformed.", messages
    )
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(set(error.valid_methods) - {"OPTIONS"}))
    return response


def _bug(error: Exception) -> Response:
    """Return the response for a bug: it has only the request's id, and the log has everything."""
    logger.error("request.failed", exc_info=error)
    return problem("internal_error", _INTERNAL)


def _flat(
    messages: Mapping[Any, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, list[str]]]:
    """Yield webargs' {location: {field: {index: [message]}}} as pairs of field.index and [message].

    The location is left out.
    """
    for key, value in messages.items():
        here = (*path, str(key))
        if isinstance(value, Mapping):
            yield from _flat(value, here)
        else:
            yield (
                ".".join(part for part in here[1:] if part != "_schema") or "body",
                [str(item) for item in value],
            )


def _audit(
    code: str, *, tenant_id: UUID | None, connection_id: UUID | None, fields: dict[str, Any]
) -> Response | None:
    """Record the refusal of an authenticated request.

    Returns a 429 to send instead if the caller had too many refusals.
    """
    who = g.get("caller")
    blueprint = current_app.blueprints.get(request.blueprint or "")
    if who is None or not isinstance(blueprint, Blueprint) or blueprint.noun is None:
        return None
    path = request.view_args or {}
    if (
        code != NotFoundError.code
        and not who.is_vendor
        and path.get("tenant_id") == who.tenant_scope
    ):
        tenant_id = who.tenant_scope
    try:
        record_refusal(
            blueprint.noun, code, path, fields, tenant_id=tenant_id, connection_id=connection_id
        )
    except errors.RateLimitedError as error:
        g.logged = True  # app/limits/refusals.py logs one line a minute, not one for each request
        return _problem_of(error)
    return None
