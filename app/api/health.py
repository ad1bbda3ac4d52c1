"""Liveness and readiness, for load balancers and for operators."""

from flask import Response
from marshmallow import fields

from app.api.kit.authentication import is_vendor_with
from app.api.kit.blueprint import PUBLIC, Blueprint, JsonObject, Scope, services
from app.api.kit.error_answers import problem_of
from app.api.kit.schemas import Answer, choice, list_of, string
from app.errors import StoreUnavailableError
from app.health.checks import Status


class Ok(Answer):
    status = fields.Constant("ok", metadata={"openapi": {"type": "string", "const": "ok"}})


class ReadinessCheck(Answer):
    OPTIONAL = frozenset({"seen", "next"})

    name = string("workers")
    status = choice(Status, metadata={"component": "ReadinessCheckStatus"})
    seen = string("1 seen in the last minute: flask 4711 on worker-1.", "What was found.")
    next = string("", "What to do; empty when there is nothing to do.")


class Readiness(Ok):
    checks = list_of(ReadinessCheck)


bp = Blueprint("health", "Whether the service runs, and whether it can work.")


@bp.operation("GET", "/healthz", PUBLIC, Ok)
def healthz() -> dict[str, str]:
    """Answer as long as the process runs; needs no database and no AWS."""
    return {}


@bp.operation("GET", "/readyz", PUBLIC, Readiness)
def readyz() -> JsonObject | Response:
    """Check database, migrations and AWS identity; a 503 names the failed checks.

    The answer also lists the checks of background work, which never cause a 503. `seen` and `next`
    are shown only to an API key that is bound to no tenant and has the scope `audit:read`.
    """
    health = services.health
    if missing := health.missing():
        detail = "Not ready; see errors for what is missing."
        return problem_of(StoreUnavailableError(detail, errors=missing))
    in_full = is_vendor_with(Scope.AUDIT_READ)
    checks = []
    for name, finding in health.findings():
        check = {"name": name, "status": finding.status}
        if in_full:
            check |= {"seen": finding.seen, "next": finding.next}
        checks.append(check)
    return {"checks": checks}
