"""Liveness and readiness, for load balancers and for operators."""

from typing import Any

from flask import Response
from marshmallow import fields

from app.api.kit.authentication import known_caller, public
from app.api.kit.blueprint import Blueprint, Scope, services
from app.api.kit.fields import string
from app.api.kit.problems import problem
from app.api.kit.schemas import Answer
from app.errors import StoreUnavailableError, TryLaterError
from app.health.checks import Status


class Ok(Answer):
    status = fields.Constant("ok", metadata={"openapi": {"type": "string", "const": "ok"}})


class CheckFinding(Answer):
    OPTIONAL = frozenset({"seen", "next"})

    name = string("workers")
    status = fields.Enum(Status, by_value=True, metadata={"component": "CheckStatus"})
    seen = string("1 seen in the last minute: flask 4711 on worker-1.", "What was found.")
    next = string("", "What to do; empty when there is nothing to do.")


class Readiness(Ok):
    checks = fields.List(fields.Nested(CheckFinding))


bp = Blueprint("health", __name__, description="Whether the service runs, and whether it can work.")


@bp.route("/healthz", methods=["GET"])
@public
@bp.response(200, Ok)
def healthz() -> dict[str, str]:
    """Answer as long as the process runs; needs no database and no AWS."""
    return {}


@bp.route("/readyz", methods=["GET"])
@public
@bp.response(200, Readiness)
def readyz() -> dict[str, Any] | Response:
    """Check database, migrations and AWS identity; 503 names those not in order.

    Also lists the checks of background work, which never cause a 503. `seen` and `next` are shown
    only to an API key that is bound to no tenant and has the scope `audit:read`.
    """
    health = services().health
    if missing := health.missing():
        detail = "Not ready; see errors for what is missing."
        return problem(StoreUnavailableError.code, detail, missing, TryLaterError.retry_after)
    caller = known_caller()
    told = caller is not None and caller.is_vendor and Scope.AUDIT_READ in caller.scopes
    shown = ("status", "seen", "next") if told else ("status",)
    found = health.findings()
    return {
        "checks": [
            {"name": name} | {field: getattr(one, field) for field in shown} for name, one in found
        ]
    }
