"""Credentials: the reason for everything else. Two shapes of the same session, as AWS's SDKs read them.

The hot path. A request without a body has nothing to parse, and an answer is a handful of strings: neither goes
through marshmallow, which would cost as much as all the rest. The schemas say what is written here; a test compares.
"""

import json
from typing import Any
from uuid import UUID

from flask import Response, request
from werkzeug.exceptions import MethodNotAllowed

from app.access import Scope
from app.api.rest import Blueprint, caller, documented, fails, requires, services
from app.api.schemas import EXPIRATION, ContainerCredentials, IssueIn, ProcessCredentials

bp = Blueprint(
    "credentials", __name__, noun="credentials", description="Short-lived credentials for a proven role."
)

_ONE = "/v1/tenants/<uuid:tenant_id>/connections/<uuid:connection_id>"
_ISSUE_IN = IssueIn()


@bp.route(f"{_ONE}/credentials", methods=["POST"])
@requires(Scope.CREDENTIALS_ISSUE, from_memory=True)
@fails(404, 409, 429)
@documented(bp.arguments(IssueIn), bp.response(200, ProcessCredentials))
def issue_credentials(tenant_id: UUID, connection_id: UUID) -> Response:
    """Issue credentials for a verified connection, in the shape that credential_process prints"""
    wanted = bp.ARGUMENTS_PARSER.parse(_ISSUE_IN, request, location="json") if _has_body() else {}
    services().rates.issue(caller())
    issued = services().vending.issue(caller(), tenant_id, connection_id, **wanted)
    return _json(
        {
            "Version": 1,
            "AccessKeyId": issued.session.access_key_id,
            "SecretAccessKey": issued.session.secret_access_key,
            "SessionToken": issued.session.session_token,
            "Expiration": issued.session.expires_at.strftime(EXPIRATION),
        }
    )


@bp.route(f"{_ONE}/container-credentials", methods=["GET"])
@requires(Scope.CREDENTIALS_ISSUE, bare_key=True, from_memory=True)
@fails(404, 409, 422, 429)
@documented(bp.response(200, ContainerCredentials))
def container_credentials(tenant_id: UUID, connection_id: UUID) -> Response:
    """Issue credentials in the shape that AWS_CONTAINER_CREDENTIALS_FULL_URI expects

    The Authorization header may also hold the bare key, as SDKs send what AWS_CONTAINER_AUTHORIZATION_TOKEN holds.
    """
    if request.method == "HEAD":  # Flask adds it to every GET; here it would issue credentials to nobody
        raise MethodNotAllowed(["GET"])
    services().rates.issue(caller())
    issued = services().vending.issue(caller(), tenant_id, connection_id)
    return _json(
        {
            "AccessKeyId": issued.session.access_key_id,
            "SecretAccessKey": issued.session.secret_access_key,
            "Token": issued.session.session_token,
            "Expiration": issued.session.expires_at.strftime(EXPIRATION),
            "AccountId": issued.session.account_id,
            "RoleArn": issued.role_arn,
        }
    )


def _has_body() -> bool:
    """Whether there may be one: a chunked body has no length to tell."""
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def _json(answer: dict[str, Any]) -> Response:
    return Response(json.dumps(answer), content_type="application/json")
