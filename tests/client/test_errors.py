"""Each error, provoked for real where it can be; what it says, and what it never says."""

import pickle
import socket
import traceback
import uuid

import deputy_client
import pytest

from tests.client.people import CustomerAccount, issued, secret_of

pytestmark = pytest.mark.usefixtures("pauses")


@pytest.fixture(scope="module")
def place(world) -> CustomerAccount:
    """For tests that change nothing of it."""
    return CustomerAccount(world)


@pytest.fixture
def own_place(world) -> CustomerAccount:
    return CustomerAccount(world)


def refused(kind, place, **options):
    options.setdefault("key", place.key)
    with pytest.raises(deputy_client.DeputyError) as caught:
        deputy_client.session(*options.pop("ids", place.ids), **options)
    error = caught.value
    assert type(error) is kind, error
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert options["key"] is None or secret_of(options["key"]) not in told
    return error


def test_a_connection_that_may_not_issue_says_why_and_what_to_do(own_place, deputy):
    own_place.open_the_role()
    assert own_place.admin("/verify")["status"] == "insecure"
    error = refused(deputy_client.NotVerified, own_place)
    assert error.code == "connection_not_verified"
    assert error.request_id
    assert error.request_id in str(error)
    assert "/verify" in str(error)
    assert len(deputy.requests) == 1
    own_place.admin("/suspend", {"reason": "unpaid"})
    assert "resume" in str(refused(deputy_client.Suspended, own_place))


def test_role_refused(own_place):
    own_place.customer.remove_role(own_place.role_name)
    error = refused(deputy_client.RoleRefused, own_place)
    assert "/verify" in str(error)
    assert error.code == "role_refused"


def test_a_key_that_may_not_issue_is_not_permitted(place, world):
    unknown, reader = (
        f"dpk_{'0' * 16}_{'x' * 43}",
        world.key("connections:read", tenant=place.tenant),
    )
    assert "DEPUTY_API_KEY" in str(refused(deputy_client.NotPermitted, place, key=unknown))
    assert "credentials:issue" in str(refused(deputy_client.NotPermitted, place, key=reader.key))
    for ids in (CustomerAccount(world).ids, (place.ids[0], uuid.uuid4())):
        assert refused(deputy_client.NotPermitted, place, ids=ids).code == "not_found"


def test_a_bad_request_says_which_field(place, deputy):
    for field, value in (("duration_seconds", 1), ("session_policy", "{"), ("reason", "a\nb")):
        error = refused(deputy_client.BadRequest, place, **{field: value})
        assert list(error.errors) == [field]
        assert f"{field}: {error.errors[field][0]}" in str(error)
    assert len(deputy.requests) == 3


def test_what_is_no_id_and_no_json_is_not_sent(place, deputy):
    for options in (
        {"ids": ("x", uuid.uuid4())},
        {"ids": (uuid.uuid4(), "../..")},
        {"ids": (None, uuid.uuid4())},
        {"session_policy": {"x": object()}},
        {"duration_seconds": float("nan")},
    ):
        refused(deputy_client.BadRequest, place, **options)
    assert deputy.requests == []


def test_aws_unavailable_is_tried_again_as_deputy_asks(own_place, deputy, faults, pauses):
    faults.add("error", role_arn=own_place.connection["role_arn"])
    error = refused(deputy_client.Unreachable, own_place)
    assert error.code == "aws_unavailable"
    assert error.retry_after == 2
    assert len(deputy.requests) == 4
    assert len(pauses) == 3
    assert all(2 <= pause <= 3 for pause in pauses), "and not all clients at once"


def busy(seconds):
    body = b'{"code": "rate_limited", "detail": "Too many.", "request_id": "r1"}'
    return 429, {"Retry-After": seconds, "Content-Type": "application/problem+json"}, body


def test_the_client_waits_when_told_to_slow_down_but_not_for_long(place, deputy, pauses):
    deputy.answer_first(busy("1"), (503, {}, b"<html>"), (502, {}, b""))
    assert place.session()
    assert len(deputy.requests) == 4
    assert 1 <= pauses[0] <= 1.5
    assert 0.5 <= pauses[1] <= 1 <= pauses[2] <= 2
    deputy.answer_first(busy("60"))
    error = refused(deputy_client.Unreachable, place)
    assert error.retry_after == 60
    assert error.code == "rate_limited"
    assert error.request_id == "r1"
    bug = b'{"code": "internal_error", "detail": "Wrong.", "request_id": "r2"}'
    deputy.answer_first((500, {}, bug))
    assert refused(deputy_client.Unreachable, place).request_id == "r2"
    assert len(deputy.requests) == 6, "neither is tried again"
    assert len(pauses) == 3
    deputy.answer_first(*[busy("1")] * 9)
    assert place.session(), "a rate limit is waited for as long as the client has patience"


def test_nobody_listens_or_answers(place, pauses, monkeypatch):
    monkeypatch.setattr("deputy_client.service.READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "timeout" in str(refused(deputy_client.Unreachable, place, url=url)).lower()
    pauses.clear()
    assert url.removeprefix("http://") in str(refused(deputy_client.Unreachable, place, url=url))
    assert len(pauses) == 3


def test_an_answer_that_is_not_deputys_is_not_taken_for_one(place, deputy):
    """Nor is a redirect followed."""
    for status in (301, 307):
        deputy.answer_first((status, {"Location": f"{deputy.url}/elsewhere"}, b""))
        assert "redirect" in str(refused(deputy_client.Unreachable, place))
    assert len(deputy.requests) == 2
    for status in (200, 401, 409, 500):
        for body in (b"<html>Please log in</html>", b"[]", b'{"AccessKeyId": "x"}', b"\xff"):
            deputy.instead = lambda answer=(status, {}, body): answer
            assert "DEPUTY_URL" in str(refused(deputy_client.Unreachable, place))


def test_a_detail_cant_write_to_the_terminal(place, deputy):
    deputy.answer_first(
        (418, {}, b'{"code": "new", "detail": "a\\u001b[31m\\r\\nb", "errors": {"x": "y"}}')
    )
    error = refused(deputy_client.DeputyError, place)
    assert str(error).isprintable()
    assert error.errors == {"x": ["y"]}


def test_credentials_that_have_expired_are_none(place, deputy):
    for expiration in ("soon", "2020-01-01T00:00:00Z", "2999-01-01T00:00:00"):
        deputy.answer_first(issued(expiration))
        refused(deputy_client.ConfigurationError, place)


def test_the_key_goes_nowhere_in_clear(place, monkeypatch):
    monkeypatch.setattr(
        "deputy_client.service._connection", lambda _: pytest.fail("it must not connect")
    )
    for url in (
        "http://deputy.example.com",
        "http://10.0.0.1:8000",
        "http://localhost.example.com",
        "http://127.0.0.1@deputy.example.com",
        "http://127.0.0.1\\@deputy.example.com",
        "https://me:secret@deputy.example.com",
        "https://deputy.example.com?x=1",
        "https://",
        "https://[::1",
        "https://deputy.example.com:port",
        "deputy.example.com",
    ):
        error = refused(deputy_client.ConfigurationError, place, url=url)
        assert "https" in str(error)
        assert "secret" not in str(error)


def test_within_this_machine_http_will_do(place, deputy):
    port = deputy.url.rpartition(":")[2]
    for url in (f"http://127.0.0.1:{port}/", f"HTTP://LOCALHOST:{port}"):
        assert place.session(url=url)


def test_without_a_url_or_a_key(place, deputy, monkeypatch, tmp_path):
    def said(**options):
        return str(refused(deputy_client.ConfigurationError, place, **{"key": None} | options))

    assert "DEPUTY_API_KEY_FILE" in said()
    monkeypatch.setenv("DEPUTY_API_KEY", " \n")
    assert "empty" in said()
    monkeypatch.setenv("DEPUTY_API_KEY_FILE", str(tmp_path / "none"))
    assert str(tmp_path / "none") in said()
    (tmp_path / "none").write_bytes(b"dpk_\xff")
    assert "characters" in said()
    for key in ("dpk_a\nX-Evil: 1", "dpk_ä", "dpk_a\x00"):
        with pytest.raises(deputy_client.ConfigurationError) as caught:
            deputy_client.session(*place.ids, key=key)
        assert key not in str(caught.value)
    monkeypatch.delenv("DEPUTY_URL")
    assert "DEPUTY_URL" in said(key=place.key)
    assert deputy.requests == []


def test_errors_travel_between_processes(place):
    error = refused(deputy_client.BadRequest, place, duration_seconds=1)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  ours
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.errors == error.errors
