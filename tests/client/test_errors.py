"""Each error, provoked for real where it can be; what it says, and what it never says."""

import pickle
import socket
import threading
import traceback
import uuid

import deputy_client
import pytest

from tests.client.people import CustomerAccount, Deputy, secret_of
from tests.support.cast import World

pytestmark = pytest.mark.usefixtures("pauses")


@pytest.fixture(scope="module")
def place(world: World) -> CustomerAccount:
    """For tests that change nothing of it."""
    return CustomerAccount(world)


@pytest.fixture
def own_place(world: World) -> CustomerAccount:
    return CustomerAccount(world)


def refused(kind, place: CustomerAccount, **options) -> deputy_client.DeputyError:
    options.setdefault("key", place.key)
    with pytest.raises(deputy_client.DeputyError) as caught:
        deputy_client.session(*options.pop("ids", place.ids), **options)
    error = caught.value
    assert type(error) is kind, error
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert options["key"] is None or secret_of(options["key"]) not in told
    return error


def test_not_verified(own_place: CustomerAccount, deputy: Deputy):
    own_place.open_the_role()
    assert own_place.admin("/verify")["status"] == "insecure"
    error = refused(deputy_client.NotVerified, own_place)
    assert error.code == "connection_not_verified"
    assert error.request_id
    assert error.request_id in str(error)
    assert "/verify" in str(error)
    assert len(deputy.requests) == 1


def test_suspended(own_place: CustomerAccount):
    own_place.admin("/suspend", {"reason": "unpaid"})
    assert "resume" in str(refused(deputy_client.Suspended, own_place))


def test_role_refused(own_place: CustomerAccount):
    own_place.customer.remove_role(own_place.role_name)
    error = refused(deputy_client.RoleRefused, own_place)
    assert "/verify" in str(error)
    assert error.code == "role_refused"


def test_not_permitted_without_a_valid_key(place: CustomerAccount):
    assert "DEPUTY_API_KEY" in str(
        refused(deputy_client.NotPermitted, place, key=f"dpk_{'0' * 16}_{'x' * 43}")
    )


def test_not_permitted_without_the_scope(place: CustomerAccount, world: World):
    reader = world.key("connections:read", tenant=place.tenant)
    assert "credentials:issue" in str(refused(deputy_client.NotPermitted, place, key=reader.key))


def test_not_permitted_for_another_tenant(place: CustomerAccount, world: World):
    error = refused(deputy_client.NotPermitted, place, ids=CustomerAccount(world).ids)
    assert error.code == "not_found"
    assert (
        refused(deputy_client.NotPermitted, place, ids=(place.ids[0], uuid.uuid4())).code
        == "not_found"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("duration_seconds", 1),
        ("session_policy", {"no": "policy"}),
        ("session_policy", "{"),
        ("reason", "a\nb"),
    ],
)
def test_bad_request_says_which_field(place: CustomerAccount, deputy: Deputy, field, value):
    error = refused(deputy_client.BadRequest, place, **{field: value})
    assert list(error.errors) == [field]
    assert f"{field}: {error.errors[field][0]}" in str(error)
    assert len(deputy.requests) == 1


@pytest.mark.parametrize(
    "ids", [("x", uuid.uuid4()), (uuid.uuid4(), "../.."), (None, uuid.uuid4()), (1, 2)]
)
def test_ids_that_are_none_are_not_sent(place: CustomerAccount, deputy: Deputy, ids):
    refused(deputy_client.BadRequest, place, ids=ids)
    assert deputy.requests == []


def test_what_is_not_json_is_not_sent(place: CustomerAccount, deputy: Deputy):
    refused(deputy_client.BadRequest, place, session_policy={"x": object()})
    refused(deputy_client.BadRequest, place, duration_seconds=float("nan"))
    assert deputy.requests == []


def test_aws_unavailable_is_tried_again_as_deputy_asks(
    own_place: CustomerAccount, deputy: Deputy, faults, pauses: list[float]
):
    faults.add("error", role_arn=own_place.connection["role_arn"])
    error = refused(deputy_client.Unreachable, own_place)
    assert error.code == "aws_unavailable"
    assert error.retry_after == 2
    assert len(deputy.requests) == 4
    assert pauses == [2, 2, 2]


def busy(seconds: str):
    body = b'{"code": "rate_limited", "detail": "Too many.", "request_id": "r1"}'
    return 429, {"Retry-After": seconds, "Content-Type": "application/problem+json"}, body


def test_the_client_waits_when_told_to_slow_down(
    place: CustomerAccount, deputy: Deputy, pauses: list[float]
):
    deputy.answer_first(busy("1"), (503, {}, b"<html>"), (502, {}, b""))
    assert deputy_client.session(*place.ids, key=place.key)
    assert len(deputy.requests) == 4
    assert pauses[0] == 1
    assert 0.5 <= pauses[1] <= 1 <= pauses[2] <= 2


def test_the_client_does_not_wait_for_long(
    place: CustomerAccount, deputy: Deputy, pauses: list[float]
):
    deputy.answer_first(busy("60"))
    error = refused(deputy_client.Unreachable, place)
    assert (error.retry_after, error.code, error.request_id) == (60, "rate_limited", "r1")
    assert (len(deputy.requests), pauses) == (1, [])


def test_a_bug_of_deputys_is_not_tried_again(place: CustomerAccount, deputy: Deputy):
    deputy.answer_first(
        (500, {}, b'{"code": "internal_error", "detail": "Wrong.", "request_id": "r2"}')
    )
    assert refused(deputy_client.Unreachable, place).request_id == "r2"
    assert len(deputy.requests) == 1


def test_nobody_listens(place: CustomerAccount, pauses: list[float]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = refused(deputy_client.Unreachable, place, url=f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in str(error)
    assert len(pauses) == 3


def test_nobody_answers(place: CustomerAccount, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deputy_client.service.READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "timeout" in str(refused(deputy_client.Unreachable, place, url=url)).lower()


def test_somebody_hangs_up(place: CustomerAccount):
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def hang_up() -> None:
            for _ in range(4):
                rude.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        refused(deputy_client.Unreachable, place, url=f"http://127.0.0.1:{rude.getsockname()[1]}")
        thread.join(5)
        assert not thread.is_alive(), "it must ask four times"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(place: CustomerAccount, deputy: Deputy, status):
    deputy.answer_first((status, {"Location": f"{deputy.url}/elsewhere"}, b""))
    assert "redirect" in str(refused(deputy_client.Unreachable, place))
    assert len(deputy.requests) == 1


@pytest.mark.parametrize("status", [200, 401, 403, 404, 409, 500])
@pytest.mark.parametrize(
    "body", [b"<html>Please log in</html>", b"[]", b'{"AccessKeyId": "x"}', b"\xff"]
)
def test_an_answer_that_is_not_deputys_is_not_taken_for_one(
    place: CustomerAccount, deputy: Deputy, status, body
):
    deputy.answer_first(*[(status, {}, body)] * 4)
    assert "DEPUTY_URL" in str(refused(deputy_client.Unreachable, place))


def test_a_detail_cant_write_to_the_terminal(place: CustomerAccount, deputy: Deputy):
    deputy.answer_first(
        (418, {}, b'{"code": "new", "detail": "a\\u001b[31m\\r\\nb", "errors": {"x": "y"}}')
    )
    error = refused(deputy_client.DeputyError, place)
    assert str(error).isprintable()
    assert error.errors == {"x": ["y"]}


@pytest.mark.parametrize("expiration", ["soon", "2020-01-01T00:00:00Z", "2999-01-01T00:00:00"])
def test_credentials_that_have_expired_are_none(place: CustomerAccount, deputy: Deputy, expiration):
    body = (
        '{"AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c", "Expiration":'
        f' "{expiration}"}}'
    )
    deputy.answer_first((200, {}, body.encode()))
    refused(deputy_client.ConfigurationError, place)


@pytest.mark.parametrize(
    "url",
    [
        "http://deputy.example.com",
        "http://10.0.0.1:8000",
        "http://localhost.example.com",
        "http://127.0.0.1@deputy.example.com",
        "http://127.0.0.1\\@deputy.example.com",
        "http://localhost:1@deputy.example.com",
        "https://me:secret@deputy.example.com",
        "https://deputy.example.com?x=1",
        "https://deputy.example.com#x",
        "https://",
        "https://[::1",
        "https://deputy.example.com:port",
        "ftp://localhost",
        "deputy.example.com",
        " ",
    ],
)
def test_the_key_goes_nowhere_in_clear(
    place: CustomerAccount, url, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "deputy_client.service._connection", lambda _: pytest.fail("it must not connect")
    )
    error = refused(deputy_client.ConfigurationError, place, url=url)
    assert "https" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}/", "http://localhost:{}", "HTTP://LOCALHOST:{}"]
)
def test_within_this_machine_http_will_do(place: CustomerAccount, deputy: Deputy, url):
    port = deputy.url.rpartition(":")[2]
    assert deputy_client.session(*place.ids, key=place.key, url=url.format(port))


def test_without_a_url_or_a_key(place: CustomerAccount, monkeypatch: pytest.MonkeyPatch, tmp_path):
    assert "DEPUTY_API_KEY_FILE" in str(refused(deputy_client.ConfigurationError, place, key=None))
    monkeypatch.setenv("DEPUTY_API_KEY", " \n")
    assert "empty" in str(refused(deputy_client.ConfigurationError, place, key=None))
    monkeypatch.setenv("DEPUTY_API_KEY_FILE", str(tmp_path / "none"))
    assert str(tmp_path / "none") in str(refused(deputy_client.ConfigurationError, place, key=None))
    (tmp_path / "none").write_bytes(b"dpk_\xff")
    assert "characters" in str(refused(deputy_client.ConfigurationError, place, key=None))
    monkeypatch.delenv("DEPUTY_URL")
    assert "DEPUTY_URL" in str(refused(deputy_client.ConfigurationError, place))


@pytest.mark.parametrize("key", ["dpk_a\nX-Evil: 1", "dpk_a b", "dpk_ä", "dpk_a\x00", "dpk_a\r"])
def test_a_key_that_is_no_header_is_not_sent(place: CustomerAccount, deputy: Deputy, key):
    with pytest.raises(deputy_client.ConfigurationError) as caught:
        deputy_client.session(*place.ids, key=key)
    assert key not in str(caught.value)
    assert deputy.requests == []


def test_errors_travel_between_processes(place: CustomerAccount):
    error = refused(deputy_client.BadRequest, place, duration_seconds=1)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  ours
    assert (type(again), str(again), again.errors) == (type(error), str(error), error.errors)
