"""The sandbox's own HTTP interface under /_sandbox/, for example for faults and recorded calls."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Request, Response

from sandbox.organization import organization

if TYPE_CHECKING:
    from sandbox.server import Sandbox


def control(sandbox: "Sandbox", request: Request) -> Response:
    """Answer one request, without authentication: only developers and tests may reach this port."""
    route = _ROUTES.get((request.method, request.path))
    if route is None:
        return _json({"error": f"the sandbox has no {request.method} {request.path}"}, 404)
    return route(sandbox, request)


def _health(_sandbox: "Sandbox", _request: Request) -> Response:
    return _json({"status": "ok"})


def _vendor(sandbox: "Sandbox", _request: Request) -> Response:
    """Return the outputs of the vendor's stack, as its operator would read them in the console."""
    if sandbox.vendor is None:
        return _json({"error": "there is no vendor"}, 404)
    return _json(asdict(sandbox.vendor))


def _calls(sandbox: "Sandbox", _request: Request) -> Response:
    calls = [asdict(call) for call in list(sandbox.sts_calls)]
    return _json({"sts_calls": calls, "sts_times": list(sandbox.sts_times)})


def _reset(sandbox: "Sandbox", _request: Request) -> Response:
    sandbox.reset()
    return Response(status=204)


def _clear_faults(sandbox: "Sandbox", _request: Request) -> Response:
    sandbox.faults.clear()
    return Response(status=204)


def _add_fault(sandbox: "Sandbox", request: Request) -> Response:
    try:
        fault = sandbox.faults.add(**json.loads(request.get_data()))
    except (TypeError, ValueError) as error:
        return _json({"error": str(error)}, 400)
    return _json(asdict(fault), 201)


def _broker_credentials(sandbox: "Sandbox", _request: Request) -> Response:
    """Return the broker's credentials in the format of a container's agent.

    The service then runs as a role, and its AssumeRole is role chaining.
    """
    if sandbox.broker_arn is None:
        return _json({"error": "the vendor's stack is not deployed"}, 404)
    session = sandbox.open_session(sandbox.broker_arn, "deputy")
    credentials = {
        "RoleArn": sandbox.broker_arn,
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret_access_key,
        "Token": session.token,
        "Expiration": session.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return _json(credentials, headers={"Cache-Control": "no-store"})


def _organization(_sandbox: "Sandbox", request: Request) -> Response:
    """Replace the organisation, and answer after the StackSets with AutoDeployment have begun."""
    try:
        return _json(organization.change(json.loads(request.get_data())))
    except (TypeError, ValueError) as error:
        return _json({"error": str(error)}, 400)


def _json(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(json.dumps(body), status, dict(headers or {}), content_type="application/json")


_ROUTES: dict[tuple[str, str], Callable[["Sandbox", Request], Response]] = {
    ("GET", "/_sandbox/health"): _health,
    ("GET", "/_sandbox/calls"): _calls,
    ("GET", "/_sandbox/vendor"): _vendor,
    ("GET", "/_sandbox/broker-credentials"): _broker_credentials,
    ("POST", "/_sandbox/reset"): _reset,
    ("POST", "/_sandbox/faults"): _add_fault,
    ("DELETE", "/_sandbox/faults"): _clear_faults,
    ("POST", "/_sandbox/organization"): _organization,
}
