"""Connections: a tenant's links to IAM roles, and their proofs."""

from functools import partial
from typing import Any
from uuid import UUID

from app.access.callers import Scope
from app.api.connection_schemas import ConnectionIn, ConnectionOut, ConnectionQuery, ConnectionSummary
from app.api.suspension_schemas import Reason
from app.connections.listing import Wanted
from app.http.authentication import requires
from app.http.blueprint import Blueprint
from app.http.current import caller, services
from app.http.cursors import paged
from app.http.schemas import Empty, page_of
from app.store.models import Connection

bp = Blueprint("connections", __name__, noun="connection", description="Links to IAM roles, and their proofs.")

_ALL = "/v1/tenants/<uuid:tenant_id>/connections"
_ONE = f"{_ALL}/<uuid:connection_id>"
_ConnectionPage = page_of(ConnectionOut)


@bp.route(_ALL, methods=["POST"])
@requires(Scope.CONNECTIONS_WRITE, fails=[404, 409, 429])
@bp.arguments(ConnectionIn)
@bp.response(201, ConnectionOut)
def create_connection(body: dict[str, Any], tenant_id: UUID) -> Connection:
    """Connect a role, and prove it once before answering

    `verified`: the role accepts the tenant's External ID, and refuses the broker without it and with another one.
    `pending`: the role refused for 5 seconds. A new role does so at first; Deputy tries again after 5, 15, 30 and 60
    seconds, and then hourly for 14 days.

    With `account_id` instead of `role_arn` Deputy looks for the onboarding kit's role in that account, on the same
    schedule, and answers `pending`. AWS gives the same answer for an absent role and for one that refuses.
    """
    services().quotas.attempt(caller(), tenant_id)
    make = services().connections.seek if "account_id" in body else services().connections.create
    return make(caller(), tenant_id, **body)


@bp.route(_ALL, methods=["GET"])
@requires(Scope.CONNECTIONS_READ, fails=[404])
@bp.arguments(ConnectionQuery, location="query")
@bp.response(200, _ConnectionPage)
def list_connections(query: dict[str, Any], tenant_id: UUID) -> dict[str, Any]:
    """List a tenant's connections, newest first"""
    wanted = Wanted(tuple(query.get("status", ())), query.get("account_id"))
    return paged(query, partial(services().listing.list, caller(), tenant_id, wanted))


@bp.route(f"{_ALL}/summary", methods=["GET"])
@requires(Scope.CONNECTIONS_READ, fails=[404])
@bp.response(200, ConnectionSummary)
def summarize_connections(tenant_id: UUID) -> dict[str, Any]:
    """Count a tenant's connections by status"""
    counts = services().listing.summary(caller(), tenant_id)
    return {"total": sum(counts.values()), "by_status": counts}


@bp.route("/v1/connections", methods=["GET"])
@requires(Scope.CONNECTIONS_READ)
@bp.arguments(ConnectionQuery, location="query")
@bp.response(200, _ConnectionPage)
def list_all_connections(query: dict[str, Any]) -> dict[str, Any]:
    """List connections across tenants, newest first"""
    wanted = Wanted(tuple(query.get("status", ())), query.get("account_id"))
    return paged(query, partial(services().listing.list_all, caller(), wanted))


@bp.route(_ONE, methods=["GET"])
@requires(Scope.CONNECTIONS_READ, fails=[404])
@bp.response(200, ConnectionOut)
def get_connection(tenant_id: UUID, connection_id: UUID) -> Connection:
    """Read a connection"""
    return services().connections.get(caller(), tenant_id, connection_id)


@bp.route(_ONE, methods=["DELETE"])
@requires(Scope.CONNECTIONS_WRITE, fails=[404, 429])
@bp.response(204)
def delete_connection(tenant_id: UUID, connection_id: UUID) -> None:
    """Delete a connection: issuing stops at once"""
    services().quotas.stop(caller())
    services().connections.delete(caller(), tenant_id, connection_id)


@bp.route(f"{_ONE}/verify", methods=["POST"])
@requires(Scope.CONNECTIONS_WRITE, fails=[404, 409, 429])
@bp.arguments(Empty)
@bp.response(200, ConnectionOut)
def verify_connection(_body: dict[str, Any], tenant_id: UUID, connection_id: UUID) -> Connection:
    """Prove a connection again now"""
    services().quotas.attempt(caller(), tenant_id)
    return services().verification.verify(caller(), tenant_id, connection_id)


@bp.route(f"{_ONE}/suspend", methods=["POST"])
@requires(Scope.CONNECTIONS_WRITE, fails=[404, 409, 429])
@bp.arguments(Reason)
@bp.response(200, ConnectionOut)
def suspend_connection(body: dict[str, Any], tenant_id: UUID, connection_id: UUID) -> Connection:
    """Suspend a connection: no credentials are issued for it until it is resumed"""
    services().quotas.stop(caller())
    return services().connections.suspend(caller(), tenant_id, connection_id, **body)


@bp.route(f"{_ONE}/resume", methods=["POST"])
@requires(Scope.CONNECTIONS_WRITE, fails=[404, 409, 429])
@bp.arguments(Reason)
@bp.response(200, ConnectionOut)
def resume_connection(body: dict[str, Any], tenant_id: UUID, connection_id: UUID) -> Connection:
    """Resume a suspended connection, and prove it once before answering"""
    services().quotas.attempt(caller(), tenant_id)
    return services().connections.resume(caller(), tenant_id, connection_id, **body)


@bp.route(f"{_ONE}/approve", methods=["POST"])
@requires(Scope.CONNECTIONS_WRITE, fails=[404, 409])
@bp.arguments(Empty)
@bp.response(200, ConnectionOut)
def approve_connection(_body: dict[str, Any], tenant_id: UUID, connection_id: UUID) -> Connection:
    """Approve a connection that may write, in an account that was not declared

    It needs a key that is bound to no tenant. The connection is verified at once if its latest proof succeeded and is
    less than a day old; otherwise a proof is due now.
    """
    return services().connections.approve(caller(), tenant_id, connection_id)


@bp.route(f"{_ONE}/report-refused", methods=["POST"])
@requires(Scope.CREDENTIALS_ISSUE, fails=[404, 429])
@bp.arguments(Empty)
@bp.response(202, Empty)
def report_refused(_body: dict[str, Any], tenant_id: UUID, connection_id: UUID) -> dict[str, Any]:
    """Report that AWS refused issued credentials

    Deputy drops the cached sessions of the connection and makes a proof due now: at most once a minute for a
    connection, and 60 times a minute for a tenant. The answer is always 202.
    """
    services().issuer.report_refused(caller(), tenant_id, connection_id)
    return {}
