"""Liveness and readiness, for load balancers and people at three in the morning."""

from flask import Response

from app.api.errors import problem
from app.api.rest import Blueprint, public, services
from app.api.schemas import Ok

bp = Blueprint("health", __name__, description="Whether the service lives, and whether it can do its work.")


@bp.route("/healthz", methods=["GET"])
@public
@bp.response(200, Ok)
def healthz() -> dict[str, str]:
    """The process answers; asks nothing of anybody else"""
    return {}


@bp.route("/readyz", methods=["GET"])
@public
@bp.response(200, Ok)
def readyz() -> dict[str, str] | Response:
    """Database, migrations and AWS identity are as they must be; or which is not"""
    missing = services().health.missing()
    return problem("unavailable", "Not ready; see errors for what is missing.", missing) if missing else {}
