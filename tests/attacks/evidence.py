"""What every attack is held to: the answer, the audit log, and that the victim noticed nothing."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.vendor import VENDOR_ACCOUNT
from tests.support.cast import Api, World, path_of

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

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
    "sqlite3",
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

    def tells_of_globex(self, text: str) -> bool:
        """Whether a text shows anything of the victim's."""
        known = (
            self.globex["id"],
            self.globex["name"],
            self.globex["external_id"],
            self.theirs["id"],
            self.theirs["role_arn"],
            self.theirs["account_id"],
        )
        return any(value in text for value in known)


@contextmanager
def case(*names: Any, **values: Any) -> Iterator[None]:
    """Name this case of a table in what fails within."""
    try:
        yield
    except BaseException as error:
        parts = [*map(repr, names), *(f"{name}={value!r}" for name, value in values.items())]
        error.add_note(f"case: {', '.join(parts)}")
        raise


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
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
    assert set(body) <= {"type", "title", "status", "detail", "code", "errors"}
    assert response.headers["Cache-Control"] == "no-store"
    shows_nothing(response.text)
    return body


def shows_nothing(text: str) -> None:
    assert [leak for leak in (*LEAKS, *SECRETS) if leak in text] == []


def refusal(world: World, response: Any) -> dict[str, Any]:
    """The audit event of a refused request, which is found by its request id."""
    return refusals(world, response)[0]


def refusals(world: World, *responses: Any) -> list[dict[str, Any]]:
    """The audit events of the latest requests, which were refused."""
    newest_of = {
        (event["request_id"], event["outcome"]): event
        for event in newest(world, min(len(responses) + 4, 200))[::-1]
    }
    events = []
    for response in responses:
        outcome = "failed" if response.status_code >= 500 else "refused"
        events.append(newest_of[response.headers["X-Request-Id"], outcome])
        shows_no_secret(events[-1])
    return events


def newest(world: World, count: int = 25) -> list[dict[str, Any]]:
    return world.admin("GET", f"/v1/audit-events?limit={count}")["items"]


def shows_no_secret(event: dict[str, Any]) -> None:
    text = json.dumps(event)
    assert "dpk_" not in text
    assert [word for word in SECRETS[:3] if word in text] == []


@contextmanager
def unchanged(world: World, *connections: dict[str, Any], but: str | None = None) -> Iterator[None]:
    """Tenant and connection stay exactly as they are, and AWS hears nothing of the role. `but`:
    a field that may change.
    """
    before = [_state(world, connection, but) for connection in connections]
    yield
    assert [_state(world, connection, but) for connection in connections] == before


@contextmanager
def untouched(world: World, *connections: dict[str, Any]) -> Iterator[None]:
    """Unchanged, and not even the tenant's own audit log tells that somebody tried."""
    before = [_last_event(world, connection) for connection in connections]
    with unchanged(world, *connections):
        yield
    assert [_last_event(world, connection) for connection in connections] == before


def _last_event(world: World, connection: dict[str, Any]) -> list[dict[str, Any]]:
    return list(
        world.admin("GET", f"/v1/audit-events?limit=1&tenant_id={connection['tenant_id']}")["items"]
    )


def _state(world: World, connection: dict[str, Any], but: str | None) -> tuple[Any, ...]:
    shown = world.admin("GET", path_of(connection))
    return (
        world.admin("GET", f"/v1/tenants/{connection['tenant_id']}"),
        {name: value for name, value in shown.items() if name != but},
        world.calls_for(connection["role_arn"]),
    )


def check(connection: dict[str, Any], name: str) -> dict[str, Any]:
    """One check of the connection's latest proof."""
    return next(found for found in connection["verification"]["checks"] if found["name"] == name)


def outcomes(connection: dict[str, Any]) -> list[str]:
    """What own, account, missing and foreign came to; what is read comes after them."""
    return [found["outcome"] for found in connection["verification"]["checks"]][:4]


def absent() -> str:
    return str(uuid.uuid4())
