"""Rate limits: one caller can't use up what all share, and no caller can use up another's.

The clock that the limits are counted by stands still, so a slow machine sees the same answers.
"""

from collections.abc import Callable, Iterator

import pytest

from app.factory import create_app
from app.identity.scopes import ALL_SCOPES
from app.limits.limits import REFUSED_CREDENTIALS
from tests.conftest import with_settings
from tests.support.cast import Api, World, path_of

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def start_limited(aws, admin, start, stopped_clock) -> Callable[..., World]:
    """`start_limited(limit=…)`: the same service with limits that a test can reach."""
    return lambda **limits: World(aws, Api(start({}, **limits), admin.key))


@pytest.fixture(scope="module")
def tight_world(aws, vendor, config, admin) -> Iterator[World]:
    app = create_app(with_settings(config, issue_rate=3, connection_rate=3, max_connections=2))
    yield World(aws, Api(app, admin.key))
    app.extensions["deputy"].db.engine.dispose()


@pytest.fixture
def tight(tight_world, stopped_clock) -> World:
    return tight_world


def test_a_key_that_asks_too_often_is_told_when_to_ask_again(tight, stopped_clock):
    """In either shape. It affects no other key, and the audit log has no event of each."""
    connection = tight.connection()
    worker, modest = (tight.worker({"id": connection["tenant_id"]}) for _ in range(2))
    calls = len(tight.calls_for(connection["role_arn"]))
    durations = [{"duration_seconds": 900 + number} for number in range(8)]  # a session each
    for number, body in enumerate(durations):
        last = worker.raw("POST", path_of(connection, "/credentials"), body)
        assert last.status_code == (200 if number < 3 else 429)
    for answer in (last, worker.raw("GET", path_of(connection, "/container-credentials"))):
        assert answer.get_json()["code"] == "rate_limited"
        assert answer.content_type == "application/problem+json"
        assert answer.headers["Retry-After"] == "1"
    assert len(tight.calls_for(connection["role_arn"])) == calls + 3
    modest("POST", path_of(connection, "/credentials"))
    stopped_clock.move(1)
    assert worker.raw("GET", path_of(connection, "/container-credentials")).status_code == 200
    assert tight.audit(tenant_id=connection["tenant_id"], action="credentials.refused") == []


@pytest.mark.parametrize("headers", [{}, {"TE": "trailers"}], ids=["plain", "Flask"])
def test_requests_beyond_the_rate_of_a_key_are_held(start_limited, monkeypatch, headers):
    """Otherwise 64 connections that repeat one leave other tenants an eighth of their requests."""
    paused, held = [], []
    monkeypatch.setattr("app.limits.counting_in_memory.pause", paused.append)
    monkeypatch.setattr("app.limits.tenant_share.rest", held.append)
    narrow = start_limited(issue_rate=1)
    connection = narrow.connection()
    worker = narrow.worker({"id": connection["tenant_id"]})
    path = path_of(connection, "/credentials")
    worker("POST", path, headers=headers)
    at_once = int(REFUSED_CREDENTIALS.amount * REFUSED_CREDENTIALS.burst)
    slow = int(REFUSED_CREDENTIALS.amount * REFUSED_CREDENTIALS.patience) - 1
    details = [
        worker.raw("POST", path, headers=headers).get_json()["detail"]
        for _ in range(at_once + slow + 3)
    ]
    assert set(details) == {"Too many credential requests with this key: at most 1 per second."}
    assert len(paused) in {slow, slow + 1}  # as the last one rounds
    assert held in ([1] * 3, [1] * 2)


def test_the_keys_of_a_tenant_share_its_limit(start_limited, stopped_clock):
    """For any tenant that they name; and they use up none of that one's."""
    narrow = start_limited(issue_rate=100, tenant_issue_rate=4, tenant_miss_rate=1)
    connection, theirs = narrow.connection(), narrow.connection()
    keys = [narrow.worker({"id": connection["tenant_id"]}) for _ in range(3)]
    their_worker = narrow.worker({"id": theirs["tenant_id"]})
    for named, status in ((connection, 200), (theirs, 404)):
        path = path_of(named, "/credentials")
        statuses = [key.raw("POST", path).status_code for key in keys * 2]
        assert statuses == [status] * 4 + [429] * 2
        their_worker("POST", path_of(theirs, "/credentials"))
        stopped_clock.move(1)


def test_a_tenant_has_a_share_of_the_calls_to_sts(start_limited, stopped_clock):
    """Each session policy is a session of its own. Five seconds' worth may come at once."""
    world = start_limited(tenant_miss_rate=1)
    connection, other = world.connection(), world.connection()
    worker = world.worker({"id": connection["tenant_id"]})
    calls = len(world.calls_for(connection["role_arn"]))
    path = path_of(connection, "/credentials")
    durations = [{"duration_seconds": 900 + number} for number in range(6)]
    for body in durations[:5]:
        worker("POST", path, body)
    answer = worker.raw("POST", path, durations[5])
    assert answer.status_code == 429
    assert answer.get_json()["code"] == "rate_limited"
    assert 1 <= int(answer.headers["Retry-After"]) <= 5
    assert len(world.calls_for(connection["role_arn"])) == calls + 5
    worker("POST", path, durations[0])  # it is kept, and costs no call
    world.admin("POST", path_of(other, "/credentials"))
    stopped_clock.move(6)
    worker("POST", path, durations[5])


def test_a_call_beyond_a_tenants_share_waits_for_its_turn_where_that_comes_soon(
    start_limited, monkeypatch
):
    world = start_limited(tenant_miss_rate=2)
    connection = world.connection()
    worker, slept = world.worker({"id": connection["tenant_id"]}), []
    monkeypatch.setattr("app.limits.counting_in_memory.pause", slept.append)
    path = path_of(connection, "/credentials")
    for number in range(11):
        worker("POST", path, {"duration_seconds": 900 + number})
    worker("POST", path, {"duration_seconds": 1000}, expect=429)
    assert slept == [0.5]


def test_trying_roles_is_limited_for_each_tenant(tight):
    connection, other = tight.connection(), tight.connection()
    mallory = tight.key(*ALL_SCOPES, tenant=tight.tenant("Mallory"))
    for _ in range(6):  # a stranger's requests do not count
        mallory.refused("POST", path_of(connection, "/verify"), expect=404, code="not_found")
    for _ in range(2):  # connecting it was the first
        tight.admin("POST", path_of(connection, "/verify"))
    answer = tight.admin.raw("POST", path_of(connection, "/verify"))
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    tight.admin("POST", path_of(other, "/verify"))
    path, body = (
        f"/v1/tenants/{connection['tenant_id']}/connections",
        {"role_arn": connection["role_arn"]},
    )
    tight.admin.refused("POST", path, body, expect=429, code="rate_limited")


def test_a_tenant_has_so_many_connections_and_no_more(tight):
    tenant = tight.tenant()
    first = tight.connection(tenant)
    arn = f"arn:aws:iam::{first['account_id']}:role/deputy-another"
    path = f"/v1/tenants/{tenant['id']}/connections"
    tight.admin("POST", path, {"role_arn": arn}, expect=201)
    response = tight.admin.raw("POST", path, {"role_arn": f"{arn}-more"})
    assert response.status_code == 429
    assert "delete one" in response.get_json()["detail"]
    assert response.headers["Retry-After"]
    assert len(tight.admin("GET", path)["items"]) == 2
