"""What every attack is held to: the answer, the audit log, and that the victim noticed nothing."""

import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from app.clock import now
from sandbox.vendor import VENDOR_ACCOUNT
from tests.support.cast import Api, World, path_of

# Never in an answer to a tenant: AWS's own text, the broker, and the insides of the service.
LEAKS = (
    "assumed-role",
    "not authorized",
    "DeputyBroker",
    VENDOR_ACCOUNT,
    "botocore",
    "Traceback",
    "sqlalchemy",
    "psycopg",
    "marshmallow",
)
SECRETS = ("SecretAccessKey", "SessionToken", '"Token"', "ASIA")


@dataclass(frozen=True)
class Scene:
    world: World
    acme: dict[str, Any]
    globex: dict[str, Any]
    ours: dict[str, Any]
    theirs: dict[str, Any]
    mallory: Api

    @property
    def admin(self):
        return self.world.admin

    @property
    def ids(self):
        """Return the parts of the paths of Acme's own things."""
        return {"tenant_id": self.acme["id"], "connection_id": self.ours["id"]}

    def tells_of_globex(self, text):
        """Whether a text shows anything of the victim's."""
        tenant = [self.globex[name] for name in ("id", "name", "external_id")]
        connection = [self.theirs[name] for name in ("id", "role_arn", "account_id")]
        return any(value in text for value in tenant + connection)


@contextmanager
def case(*names, **values):
    """Name this case of a table in what fails within."""
    try:
        yield
    except BaseException as error:
        parts = [*map(repr, names), *(f"{name}={value!r}" for name, value in values.items())]
        error.add_note(f"case: {', '.join(parts)}")
        raise


def problem(response, status, code):
    """The problem, which must be one of ours and show nothing; without its request id, for
    comparing.
    """
    assert response.status_code == status, f"{response.status_code} {response.text}"
    assert response.content_type == "application/problem+json"
    body = response.get_json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body.pop("request_id") == response.headers["X-Request-Id"]
    assert response.headers["X-Deputy-Code"] == body["code"]
    for_sdks = {name: body.pop(name) for name in ("message", "Code", "Message") if name in body}
    detail = body["detail"]
    assert for_sdks in ({}, {"message": detail, "Code": body["code"], "Message": detail})
    assert body.keys() <= {"type", "title", "status", "detail", "code", "errors"}
    assert response.headers["Cache-Control"] == "no-store"
    shows_nothing(response.text)
    return body


def issues_nothing(
    api, connection, status=409, code="connection_not_verified", shape=("POST", "/credentials")
):
    """Ask for credentials, which must be refused."""
    method, what = shape
    problem(api.raw(method, path_of(connection, what)), status, code)


def shows_nothing(text):
    assert [leak for leak in (*LEAKS, *SECRETS) if leak in text] == []


def refusals(world, *responses):
    """The audit events of the latest requests, which were refused."""
    events = []
    newest_events = newest(world, min(len(responses) + 4, 200))
    for response in responses:
        sought = (
            response.headers["X-Request-Id"],
            "failed" if response.status_code >= 500 else "refused",
        )
        events.append(next(e for e in newest_events if (e["request_id"], e["outcome"]) == sought))
        text = json.dumps(events[-1])
        assert [word for word in ("dpk_", *SECRETS[:3]) if word in text] == []
    return events


def refusal(world, response):
    """The audit event of a refused request."""
    return refusals(world, response)[0]


def newest(world, count=25):
    """The last events until now: a test that travelled ahead may have left some of later."""
    query = urlencode({"limit": count, "until": (now() + timedelta(minutes=1)).isoformat()})
    return world.admin("GET", f"/v1/audit-events?{query}")["items"]


@contextmanager
def unchanged(world, *connections, but=None):
    """Tenant and connection stay exactly as they are, and AWS hears nothing of the role. `but`:
    a field that may change.
    """
    before = [_state(world, connection, but) for connection in connections]
    yield
    assert [_state(world, connection, but) for connection in connections] == before


@contextmanager
def untouched(world, *connections):
    """Unchanged, and not even the tenant's own audit log tells that somebody tried."""
    paths = [f"/v1/audit-events?limit=1&tenant_id={each['tenant_id']}" for each in connections]
    before = [world.admin("GET", path)["items"] for path in paths]
    with unchanged(world, *connections):
        yield
    assert [world.admin("GET", path)["items"] for path in paths] == before


def _state(world, connection, but):
    tenant = world.admin("GET", f"/v1/tenants/{connection['tenant_id']}")
    shown = world.read(connection)
    shown.pop(but, None)
    return tenant, shown, world.calls_for(connection["role_arn"])


def check(connection, name):
    """One check of the connection's latest proof."""
    return next(found for found in connection["verification"]["checks"] if found["name"] == name)


def outcomes(connection):
    """What own, account, missing and foreign came to; what is read comes after them."""
    return [found["outcome"] for found in connection["verification"]["checks"]][:4]


def absent():
    return str(uuid.uuid4())
