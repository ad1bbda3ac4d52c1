"""Credentials: the reason for everything else. Two shapes of the same session, as AWS's SDKs read them."""

from typing import Any
from uuid import UUID

from flask import request
from werkzeug.exceptions import MethodNotAllowed

from app.access import Scope
from app.api.rest import Blueprint, caller, fails, requires, services
from app.api.schemas import ContainerCredentials, IssueIn, ProcessCredentials
from app.vending import Issued

bp = Blueprint(
    "credentials", __name__, noun="credentials", description="Short-lived credentials for a proven role."
)

_ONE = "/v1/tenants/<uuid:tenant_id>/connections/<uuid:connection_id>"


@bp.route(f"{_ONE}/credentials", methods=["POST"])
@requires(Scope.CREDENTIALS_ISSUE)
@fails(404, 409, 429)
@bp.arguments(IssueIn)
@bp.response(200, ProcessCredentials)
def issue_credentials(body: dict[str, Any], tenant_id: UUID, connection_id: UUID) -> Issued:
    """Issue credentials for a verified connection, in the shape that credential_process prints"""
    services().rates.issue(caller())
    return services().vending.issue(caller(), tenant_id, connection_id, **body)


@bp.route(f"{_ONE}/container-credentials", methods=["GET"])
@requires(Scope.CREDENTIALS_ISSUE, bare_key=True)
@fails(404, 409, 422, 429)
@bp.response(200, ContainerCredentials)
def container_credentials(tenant_id: UUID, connection_id: UUID) -> Issued:
    """Issue credentials in the shape that AWS_CONTAINER_CREDENTIALS_FULL_URI expects

    The Authorization header may also hold the bare key, as SDKs send what AWS_CONTAINER_AUTHORIZATION_TOKEN holds.
    """
    if request.method == "HEAD":  # Flask adds it to every GET; here it would issue credentials to nobody
        raise MethodNotAllowed(["GET"])
    services().rates.issue(caller())
    return services().vending.issue(caller(), tenant_id, connection_id)
