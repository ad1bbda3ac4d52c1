"""The address that a request came from: in its audit events and log lines, and never the
client's own word for it.
"""

import pytest

from app.factory import create_app
from app.http import current_request
from app.http.current_request import client_address
from tests.conftest import OPERATOR, make_config
from tests.support.cast import Api, path_of

PEER = "203.0.113.9"
FORGED = "198.51.100.1"


def test_only_what_the_proxies_say_counts():
    for hops, forwarded, address in (
        (0, None, PEER),
        (0, f"{FORGED}, {FORGED}", PEER),
        (1, None, PEER),  # it came past the proxy
        (1, "192.0.2.1", "192.0.2.1"),
        (1, f"{FORGED}, 192.0.2.1", "192.0.2.1"),
        (1, f"{FORGED},,{FORGED} ,192.0.2.1", "192.0.2.1"),
        (2, "192.0.2.1", PEER),  # fewer places than proxies
        (2, "192.0.2.1, 10.0.0.1", "192.0.2.1"),
        (2, f"{FORGED}, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
        (1, '", 192.0.2.1', "192.0.2.1"),  # a parser that knows quotes finds one word here
        (2, f'{FORGED}, "\\", 192.0.2.1, 10.0.0.1', "192.0.2.1"),
        (1, "192.0.2.1:4711", "192.0.2.1"),
        (1, "2001:DB8:0:0::1", "2001:db8::1"),
        (1, "[2001:db8::1]:443", "2001:db8::1"),
        (1, "::ffff:192.0.2.1", "192.0.2.1"),
        (1, "fe80::1%eth0", "fe80::1"),
        (1, "192.0.2.1" + " " * 10_000, "192.0.2.1"),
        (1, "", None),
        (1, "192.0.2.1" * 1_000, None),
        (1, "\u0661\u0669\u0662.0.2.1", None),
    ):
        assert client_address(PEER, forwarded, hops) == address, (hops, forwarded)
    assert client_address("", None, 0) is None, "a Unix socket's"


def test_only_the_beginning_of_a_long_text_is_kept_in_memory(monkeypatch):
    kept = []
    monkeypatch.setattr(current_request, "address_of", kept.append)
    client_address(PEER, "x" * 16_000, 1)
    assert kept == ["x" * 64]


def asked(api, method, path, forwarded, **options):
    headers = {"X-Forwarded-For": forwarded}
    return api.raw(
        method, path, headers=headers, environ_overrides={"REMOTE_ADDR": PEER}, **options
    )


def addresses(world, answers):
    """Return, for each answer, the addresses of its request's events."""
    events = world.audit()
    ids = [answer.headers["X-Request-Id"] for answer in answers]
    return [
        [event["client_address"] for event in events if event["request_id"] == request_id]
        for request_id in ids
    ]


@pytest.fixture(scope="module", params=[0, 1])
def behind(request, config, admin):
    """The service behind so many proxies, and what it should see of a client that lies."""
    app = create_app(make_config(config.database.database_url, proxy_hops=request.param))
    yield Api(app, admin.key), "192.0.2.1" if request.param else PEER
    app.extensions["deputy"].db.engine.dispose()


SAID = f"{FORGED}, 192.0.2.1"


def test_every_record_of_a_request_has_its_address(world, behind):
    """A change, a refusal, an issuance of each kind, and its refusal."""
    api, address = behind
    connection = world.connection()
    path = path_of(connection, "/credentials")
    answers = [
        asked(api, "POST", "/v1/tenants", SAID, body={"name": "Acme"}),
        asked(api, "POST", "/v1/tenants", SAID, body={"name": 1}),
        asked(api, "POST", path, SAID),
        asked(api, "POST", path, SAID, body={"reason": "x"}),
        asked(api, "GET", path_of(connection, "/container-credentials"), SAID),
        asked(api, "POST", path, SAID, body={"duration_seconds": 1}),
        asked(api, "POST", path.replace(connection["tenant_id"], connection["id"]), SAID),
    ]
    assert [answer.status_code for answer in answers] == [201, 422, 200, 200, 200, 422, 404]
    assert addresses(world, answers) == [[address]] * len(answers)


@pytest.mark.parametrize("behind", [1], indirect=True)
def test_the_record_of_an_onboarding_pages_form_has_its_address_too(world, behind):
    api, address = behind
    tenant = world.tenant()
    link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)
    path = "/onboard/" + link["url"].rpartition("/")[2]
    answers = [
        asked(api, "POST", f"{path}/connections", SAID, data={"role_arn": given})
        for given in ("not an ARN", world.role(tenant))
    ]
    assert all(answer.status_code < 500 for answer in answers)
    assert [{*found} for found in addresses(world, answers)] == [{address}, {address}]


def test_what_is_no_request_has_none(world):
    """A command's, such as this one."""
    api_keys = world.admin.app.extensions["deputy"].api_keys
    key, _ = api_keys.create_key(OPERATOR, name="x", scopes=frozenset())
    event = world.audit(action="api_key.created")[0]
    assert event["details"]["api_key_id"] == str(key.id)
    assert event["client_address"] is None


def test_log_lines_hold_the_address_of_the_request(behind, caplog):
    api, address = behind
    with caplog.at_level("INFO"):
        asked(api, "GET", "/v1/tenants", SAID)
    [line] = [record.msg for record in caplog.records if record.name == "app.factory"]
    assert (line["event"], line["client_address"]) == ("request", address)
