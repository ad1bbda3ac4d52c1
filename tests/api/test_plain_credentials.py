"""A plain request that is not answered at once reaches Flask as if it had come there first."""

from contextlib import nullcontext

import pytest

from app.errors import StoreUnavailableError
from app.http.plain_requests import PlainRequest
from tests.support.cast import Api, path_of
from tests.support.rows import statements


@pytest.fixture
def connection(world) -> dict:
    return world.connection()


@pytest.fixture
def program(world, connection) -> Api:
    """A key that the process knows, as it has issued credentials before."""
    program = world.worker({"id": connection["tenant_id"]})
    program("POST", path_of(connection, "/credentials"))
    return program


def answer_plain(api, connection, **changes):
    target = (connection["tenant_id"], connection["id"], changes.pop("shape", "credentials"))
    request = PlainRequest("POST", target, f"Bearer {api.key}", None, None, b"")
    return api.app.extensions["deputy.plain_requests"].answer(
        request._replace(**changes), "127.0.0.1", nullcontext
    )


def test_what_can_not_be_answered_goes_on_as_it_came(program, connection, monkeypatch):
    services = program.app.extensions["deputy"]
    monkeypatch.setattr(services.issuer, "issue", lambda *_, **__: pytest.fail("it was admitted"))
    json = {"content_type": "application/json"}
    container = {"method": "GET", "shape": "container-credentials"}
    for changes in (
        {"authorization": "Bearer x"},
        {"authorization": f"Bearer dpk_{'0' * 16}_{'x' * 43}"},
        {"authorization": ""},
        {"method": "GET"},
        {"shape": "container-credentials"},
        container | json | {"body": b"{}"},
        {"body": b"{}"},
        {"body": b"{}", "content_type": "text/plain"},
        json | {"body": b"{"},
        json | {"body": b"[]"},
        json | {"body": b'{"reason": 1}'},
        json | {"body": b'{"no_such_field": 1}'},
    ):
        assert answer_plain(program, connection, **changes) == {}, changes


def test_a_key_that_may_not_issue_or_is_another_or_not_known_goes_on_as_it_came(
    world, program, connection
):
    reader = world.key("audit:read", tenant={"id": connection["tenant_id"]})
    reader.raw("POST", path_of(connection, "/credentials"))  # from now on the process knows it
    other = program.with_key(program.key[:-1] + ("A" if program.key[-1] != "A" else "B"))
    fresh = world.worker({"id": connection["tenant_id"]})
    with statements(world.admin.app.extensions["deputy"].db) as executed:
        assert [answer_plain(api, connection) for api in (reader, other, fresh)] == [{}, {}, {}]
    assert executed == [], "it costs no look at the database"


def test_a_refused_request_counts_once_against_each_limit(world, start, stopped_clock):
    tight = Api(start({}, issue_rate=10, tenant_issue_rate=2), world.admin.key)
    for statuses in ([200] * 2 + [429] * 4, [200] * 2, [200] * 2 + [429]):
        path = path_of(world.connection(), "/credentials")
        assert [tight.raw("POST", path).status_code for _ in statuses] == statuses


def test_a_request_whose_record_can_not_be_stored_waits_once(program, connection, monkeypatch):
    services, tries = program.app.extensions["deputy"], []

    def append(event, **_):
        tries.append(event.actor.request_id)
        raise StoreUnavailableError("The audit log is away.")

    monkeypatch.setattr(services.audit, "append", append)
    answer = program.raw("POST", path_of(connection, "/credentials"))
    assert answer.status_code == 503
    assert answer.get_json()["code"] == "unavailable"
    assert tries == [answer.headers["X-Request-Id"]], (
        "if the event is stored later, it has the answer's id"
    )
