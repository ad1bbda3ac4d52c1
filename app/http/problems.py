"""Every refusal as RFC 9457 problem+json: the one place where an error gets its HTTP status.

A refusal of an authenticated request also goes to the audit log. It is recorded under a tenant only when the
request was about the caller's own; otherwise under none, where only keys that are bound to no tenant see it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any
from uuid import UUID

from flask import Flask, Response, current_app, g, request
from marshmallow import fields
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed

from app import errors, log
from app.audit.events import Event, Outcome
from app.errors import AppError, NotFoundError, StoreUnavailableError
from app.http.blueprint import Blueprint
from app.http.current import services
from app.http.fields import like
from app.http.openapi import example_of
from app.http.schemas import Answer

_log = log.get(__name__)

# code: status and title. Every AppError's code is here (a test looks), and those that only HTTP knows.
PROBLEMS: dict[str, tuple[int, str]] = {
    errors.MalformedRequestError.code: (400, "Malformed request"),
    errors.UnauthenticatedError.code: (401, "No valid API key"),
    errors.ForbiddenError.code: (403, "Not allowed with this API key"),
    errors.NotFoundError.code: (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    errors.ConflictError.code: (409, "Conflict"),
    errors.ConnectionNotVerifiedError.code: (409, "Connection not verified"),
    errors.SuspendedError.code: (409, "Suspended"),
    errors.RoleRefusedError.code: (409, "Role refused"),
    "payload_too_large": (413, "Payload too large"),
    "uri_too_long": (414, "URI too long"),
    "unsupported_media_type": (415, "Unsupported media type"),
    errors.ValidationFailedError.code: (422, "Validation failed"),
    errors.RoleNotAllowedError.code: (422, "Role not allowed"),
    errors.RateLimitedError.code: (429, "Too many requests"),
    "headers_too_large": (431, "Headers too large"),
    "internal_error": (500, "Internal error"),
    errors.StoreUnavailableError.code: (503, "Unavailable"),
    errors.AwsUnavailableError.code: (503, "AWS unavailable"),
}
_BY_STATUS = {
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    422: "validation_failed",
    431: "headers_too_large",
    500: "internal_error",
}
_NAMED = 20  # fields that are wrong, in an answer and in its event; of the others, how many they are
_RETRY_SECONDS = {"unavailable": 2, "aws_unavailable": 2}
# The endpoint that SDKs ask: Java and Go read `code` and `message` of its refusals, JavaScript `Code` and `Message`.
_CONTAINER = "credentials.container_credentials"
CODE_HEADER = "X-Deputy-Code"  # for programs that see no body: curl --fail throws it away


class ProblemSchema(Answer):
    """RFC 9457, with a stable `code`, the request's id, and `errors` by field."""

    type = fields.String(metadata=like("urn:deputy:problem:not_found", "A URN that ends in the code."))
    title = fields.String(metadata=like("Not found"))
    status = fields.Integer(metadata=like(404))
    detail = fields.String(metadata=like("There is nothing here that this API key can see."))
    code = fields.String(
        metadata=like(
            "not_found", "Stable; programs decide by it.", component="ProblemCode", openapi={"enum": [*PROBLEMS]}
        )
    )
    request_id = fields.String(metadata=like("5f0e7a2b6c184d419c1f6e8a007c3b9d"))
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata=like({"name": ["Must not be blank."]}, "What is wrong, by field of the request.", optional=True),
    )


def examples(status: int) -> dict[str, Any]:
    """What a problem of this status may look like, by code."""
    whole = example_of(ProblemSchema(exclude=() if status == 422 else ("errors",)))
    return {
        code: {"value": whole | _facts(code) | {"detail": f"{title}."}}
        for code, (of_code, title) in PROBLEMS.items()
        if of_code == status
    }


def _facts(code: str) -> dict[str, Any]:
    status, title = PROBLEMS[code]
    return {"type": f"urn:deputy:problem:{code}", "title": title, "status": status, "code": code}


def register(app: Flask) -> None:
    app.register_error_handler(AppError, _app_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)


def problem(code: str, detail: str, problems: Mapping[str, Any] | None = None) -> Response:
    """The answer for a code. `problems`: field → messages."""
    status, _ = PROBLEMS[code]
    body = _facts(code) | {"detail": detail, "request_id": g.request_id}
    if problems:
        body["errors"] = dict(islice(problems.items(), _NAMED))
    if problems and (more := len(problems) - _NAMED) > 0:
        body["detail"] = f"{detail} {more} more are not shown."
    if request.endpoint == _CONTAINER:
        body |= {"message": detail, "Code": code, "Message": detail}
    response = Response(json.dumps(body), status, content_type="application/problem+json")
    response.headers[CODE_HEADER] = code
    if code in _RETRY_SECONDS:
        response.headers["Retry-After"] = str(_RETRY_SECONDS[code])
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="deputy"'
    return response


def _app_error(error: AppError) -> Response:
    if isinstance(error, errors.RateLimitedError):
        # Not recorded: a durable commit for each request of a flood would be the flood's success.
        return _too_often(error)
    if isinstance(error, errors.TryLaterError):
        _log.warning("request.try_later", code=error.code, exc_info=error)
    flood = _audit(error.code, tenant_id=error.tenant_id, connection_id=error.connection_id, fields=error.errors)
    return flood or problem(error.code, error.detail, error.errors)


def _too_often(error: errors.RateLimitedError) -> Response:
    response = problem(error.code, error.detail)
    response.headers["Retry-After"] = str(error.retry_after)
    return response


def _http_error(error: HTTPException) -> Response:
    """What Flask, werkzeug and webargs refuse by themselves."""
    code = code_of(error)
    messages = dict(_flat(getattr(error, "data", {}).get("messages", {})))
    if isinstance(error, InternalServerError):
        return problem(code, "Something went wrong here; the log knows it by the request id.")
    if flood := _audit(code, tenant_id=None, connection_id=None, fields=messages):
        return flood
    details = {
        "not_found": "There is nothing here that this API key can see.",
        "method_not_allowed": "This method is not one that this URL has; see Allow.",
        "payload_too_large": "The body may have 256 KiB at most.",
        "uri_too_long": "Method and URL may have 4094 bytes together.",
        "headers_too_large": "A request may have 100 header fields of 8190 bytes each.",
        "validation_failed": "Some fields are not as they must be; see errors.",
    }
    response = problem(code, details.get(code) or error.description or "The request is malformed.", messages)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(set(error.valid_methods) - {"OPTIONS"}))
    return response


def code_of(error: HTTPException) -> str:
    status = error.code or 500
    return _BY_STATUS.get(status, "malformed_request" if status < 500 else "internal_error")


def _bug(error: Exception) -> Response:
    """A bug of ours: the caller learns nothing but the request's id, and the log everything."""
    _log.error("request.failed", exc_info=error)
    return problem("internal_error", "Something went wrong here; the log knows it by the request id.")


def _flat(messages: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Webargs' {location: {field: {index: [message]}}} as field.index, [message]; the location says nothing."""
    for key, value in messages.items():
        here = (*path, str(key))
        if isinstance(value, Mapping):
            yield from _flat(value, here)
        else:
            yield (".".join(part for part in here[1:] if part != "_schema") or "body", [str(item) for item in value])


def _known(fields: Mapping[str, Any]) -> set[str]:
    """The fields that were wrong, by names of ours: an unknown one is the caller's text, a secret perhaps, or a MiB."""
    return {"(unknown)" if "Unknown field." in messages else name for name, messages in fields.items()}


def _audit(
    code: str, *, tenant_id: UUID | None, connection_id: UUID | None, fields: Mapping[str, Any]
) -> Response | None:
    """Record the refusal of an authenticated request; the answer instead of it, when there were too many."""
    who = g.get("caller")
    blueprint = current_app.blueprints.get(request.blueprint or "")
    if who is None or not isinstance(blueprint, Blueprint):
        return None
    path = request.view_args or {}
    if code != NotFoundError.code and who.tenant_id is not None and path.get("tenant_id") == who.tenant_id:
        tenant_id = who.tenant_id
    about = Event(who.actor, f"{blueprint.noun}.refused", {}, tenant_id=tenant_id, connection_id=connection_id)
    try:
        record_refusal(about, code, path, fields)
    except errors.RateLimitedError as error:
        g.logged = True  # one line a minute tells of it, and not one for each request
        return _too_often(error)
    return None


def record_refusal(about: Event, code: str, path: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Store that event, with what the request was; the answer stands even if that fails.

    `path`: those ids of the URL that may be kept. Raises RateLimitedError when the caller is refused too often.
    """
    if code == StoreUnavailableError.code:
        return
    known = sorted(_known(fields))
    details: dict[str, Any] = {
        "code": code,
        "method": request.method,
        "route": str(request.url_rule),
        "path": {name: str(value) for name, value in path.items()},
        "fields": known[:_NAMED],
    }
    if (more := len(known) - _NAMED) > 0:
        details["more_fields"] = more
    outcome: Outcome = "failed" if PROBLEMS[code][0] >= 500 else "refused"
    try:
        event = replace(about, outcome=outcome, details=details)
        services().refusals.record(g.caller.key_id, g.caller.tenant_id, event)
    except StoreUnavailableError:
        _log.exception("audit.refusal_not_recorded", code=code)
