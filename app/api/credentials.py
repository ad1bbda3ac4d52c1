"""Credentials: the reason for everything else. Two shapes of the same session, as AWS's SDKs read them.

A request without a body has nothing to parse, and an answer is a handful of strings: neither goes through
marshmallow, which would cost as much as all the rest. The schemas say what is written here; a test compares.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
from flask import Response, request
from werkzeug.exceptions import MethodNotAllowed

from app.access.callers import Scope
from app.api.credential_schemas import ISSUE_IN, ContainerCredentials, IssueIn, ProcessCredentials, container, process
from app.api.fast_lane import replay
from app.http.authentication import requires_from_memory
from app.http.blueprint import Blueprint
from app.http.current import caller, services
from app.http.openapi import documented, fails
from app.issuing.issue import Issued

bp = Blueprint("credentials", __name__, noun="credentials", description="Short-lived credentials for a proven role.")
bp.before_request(replay)

_ONE = "/v1/tenants/<uuid:tenant_id>/connections/<uuid:connection_id>"


@bp.route(f"{_ONE}/credentials", methods=["POST"])
@requires_from_memory(Scope.CREDENTIALS_ISSUE)
@fails(404, 409, 429)
@documented(bp.arguments(IssueIn), bp.response(200, ProcessCredentials))
def issue_credentials(tenant_id: UUID, connection_id: UUID) -> Response:
    """Issue credentials for a verified connection, as credential_process prints them"""
    wanted = bp.ARGUMENTS_PARSER.parse(ISSUE_IN, request, location="json") if _has_body() else {}
    issued = services().issuer.issue(caller(), tenant_id, connection_id, **wanted)
    return _answer(process, issued)


@bp.route(f"{_ONE}/container-credentials", methods=["GET"])
@requires_from_memory(Scope.CREDENTIALS_ISSUE, bare=True)
@fails(404, 409, 422, 429)
@documented(bp.response(200, ContainerCredentials))
def container_credentials(tenant_id: UUID, connection_id: UUID) -> Response:
    """Issue credentials in the shape that AWS_CONTAINER_CREDENTIALS_FULL_URI expects

    The Authorization header may also hold the bare key, as SDKs send what AWS_CONTAINER_AUTHORIZATION_TOKEN holds. A
    refusal also has `message`, `Code` and `Message`, where SDKs read the reason.
    """
    if request.method == "HEAD":  # Flask adds it to every GET; here it would issue credentials to nobody
        raise MethodNotAllowed(["GET"])
    return _answer(container, services().issuer.issue(caller(), tenant_id, connection_id))


def _has_body() -> bool:
    """Whether there may be one: a chunked body has no length to tell."""
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def _answer(shape: Callable[[Issued], dict[str, Any]], issued: Issued) -> Response:
    return Response(orjson.dumps(shape(issued)), content_type="application/json")
