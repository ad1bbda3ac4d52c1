"""Credentials, in the two shapes that AWS's SDKs read.

app/api/plain_credentials.py answers most of these requests. Answers are written without
marshmallow, which would take as long as the rest of the request. A test compares them with the
schemas.
"""

from uuid import UUID

import orjson
from flask import Response, request
from werkzeug.exceptions import MethodNotAllowed

from app.api.credential_schemas import (
    ContainerCredentials,
    IssueIn,
    ProcessCredentials,
    Shape,
    container,
    process,
)
from app.api.kit.authentication import requires_from_memory
from app.api.kit.blueprint import Blueprint, JsonObject, Scope, principal, services
from app.api.plain_credentials import raise_failure
from app.issuing.issue import Issued

bp = Blueprint("credentials", "Short-lived credentials for a proven role.", noun="credentials")
bp.before_request(raise_failure)

_ONE = "/v1/tenants/<uuid:tenant_id>/connections/<uuid:connection_id>"


@bp.route(f"{_ONE}/credentials", methods=["POST"])
@requires_from_memory(Scope.CREDENTIALS_ISSUE, fails=[404])
@bp.arguments(IssueIn)
@bp.response(200, ProcessCredentials)
def issue_credentials(body: JsonObject, tenant_id: UUID, connection_id: UUID) -> Response:
    """Issue credentials for a verified connection, as credential_process prints them."""
    return _answer(process, services.issuer.issue(principal(), tenant_id, connection_id, **body))


@bp.route(f"{_ONE}/container-credentials", methods=["GET"])
@requires_from_memory(Scope.CREDENTIALS_ISSUE, bare=True, fails=[404, 409, 422])
@bp.response(200, ContainerCredentials)
def container_credentials(tenant_id: UUID, connection_id: UUID) -> Response:
    """Issue credentials in the shape that AWS_CONTAINER_CREDENTIALS_FULL_URI expects.

    The Authorization header may also hold the key without `Bearer`, because SDKs send
    AWS_CONTAINER_AUTHORIZATION_TOKEN as it is. SDKs read the reason of a refusal from `message`,
    `Code` or `Message`, so a refusal also has these fields.
    """
    # Flask adds HEAD to every GET; it would issue credentials and drop them
    if request.method == "HEAD":
        raise MethodNotAllowed(["GET"])
    return _answer(container, services.issuer.issue(principal(), tenant_id, connection_id))


def _answer(shape: Shape, issued: Issued) -> Response:
    return Response(orjson.dumps(shape(issued)), content_type="application/json")
