"""Liveness and readiness, for load balancers and for operators."""

from typing import Any

from flask import Response

from app.access.callers import Scope
from app.api.health_schemas import Ok, Readiness
from app.http.authentication import known_caller, public
from app.http.blueprint import Blueprint
from app.http.current import services
from app.http.problems import problem

bp = Blueprint("health", __name__, description="Whether the service runs, and whether it can work.")


@bp.route("/healthz", methods=["GET"])
@public
@bp.response(200, Ok)
def healthz() -> dict[str, str]:
    """The process answers; needs no database and no AWS"""
    return {}


@bp.route("/readyz", methods=["GET"])
@public
@bp.response(200, Readiness)
def readyz() -> dict[str, Any] | Response:
    """Database, migrations and AWS identity are in order; 503 names those that are not

    Also lists the checks of background work, which never cause a 503. `seen` and `next` are shown only to an API key
    that is bound to no tenant and has the scope `audit:read`.
    """
    health = services().health
    if missing := health.missing():
        return problem("unavailable", "Not ready; see errors for what is missing.", missing)
    caller = known_caller()
    told = caller is not None and caller.tenant_id is None and Scope.AUDIT_READ in caller.scopes
    return {
        "checks": [
            {"name": name, "status": found.status} | ({"seen": found.seen, "next": found.next} if told else {})
            for name, found in health.findings()
        ]
    }
