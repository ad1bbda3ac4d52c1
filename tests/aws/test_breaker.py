"""The breaker: opens when AWS as a whole is silent, and for no single role, policy or caller;
closes by itself.
"""

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from structlog.testing import capture_logs

from app.aws.breaker import Breaker
from app.aws.errors import StsError, Unavailable
from app.factory import create_app
from tests.conftest import StoppedClock
from tests.support.cast import Api, Customer
from tests.support.rows import Role, place

TENANT = "dpy-0123456789abcdef"
OPEN = 3.0  # seconds until somebody may try again


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch) -> StoppedClock:
    """The breaker's, which stands still until it is moved; and boto's pauses are too long for a
    test.
    """
    clock = StoppedClock()
    monkeypatch.setattr("app.aws.breaker.time", clock)
    monkeypatch.setattr("app.aws.breaker._OPEN_SECONDS", OPEN)
    monkeypatch.setattr("app.aws.query_api.PAUSE", 0)
    return clock


def answer(code, status=400):
    return ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "AssumeRole"
    )


SILENCE = [
    *(
        kind(endpoint_url="x")
        for kind in (ConnectTimeoutError, ReadTimeoutError, EndpointConnectionError)
    ),
    NoCredentialsError(),
    answer("InternalFailure", 500),
    *(answer("Throttling"), answer("RequestLimitExceeded", 503), answer("Whatever", 429)),
    ValueError("what a proxy said is no XML"),
    ClientError({}, "AssumeRole"),
]
ABOUT_ONE = [
    *(
        answer("AccessDenied", 403),
        answer("ValidationError"),
        answer("RegionDisabledException", 403),
    ),
    *(answer("ExpiredToken", 403), answer("SomethingNew", 409)),
]


def fail(breaker, error, times=1, tenant=None):
    """So many calls fail, each for a tenant of its own unless one is named."""
    for _ in range(times):
        with pytest.raises(StsError), breaker.call(tenant or secrets.token_hex(6)):
            raise error


def shut_out(breaker):
    """Whether a call is refused before it is made."""
    made = []
    try:
        with breaker.call(TENANT):
            made.append(1)
    except Unavailable:
        assert not made
        return True
    return False


@pytest.fixture
def opened() -> Breaker:
    breaker = Breaker()
    fail(breaker, SILENCE[0], 10)
    return breaker


@pytest.mark.parametrize("error", SILENCE, ids=repr)
def test_ten_silences_in_a_row_open_the_breaker(error):
    breaker = Breaker()
    fail(breaker, error, 9)
    assert not shut_out(breaker), "a success ends the row"
    fail(breaker, error, 9)
    assert not breaker.is_open
    fail(breaker, error)
    assert breaker.is_open
    assert shut_out(breaker)


@pytest.mark.parametrize("error", ABOUT_ONE, ids=repr)
def test_answers_about_one_role_or_one_policy_never_do(error, stopped_clock):
    """Each is an answer, which ends the row, and closes an open breaker."""
    breaker = Breaker()
    fail(breaker, error, 40)
    fail(breaker, SILENCE[0], 9)
    fail(breaker, error)
    fail(breaker, SILENCE[0], 9)
    assert not breaker.is_open
    fail(breaker, SILENCE[0])
    assert breaker.is_open
    stopped_clock.move(OPEN)
    fail(breaker, error)
    assert not breaker.is_open


@pytest.mark.parametrize("error", [answer("Throttling"), answer("SlowDown", 503)], ids=repr)
def test_throttling_of_one_tenant_shuts_the_others_out_never(error):
    breaker = Breaker()
    fail(breaker, error, 40, TENANT)
    assert not breaker.is_open
    fail(breaker, error, 9)
    assert breaker.is_open, "and of many tenants it counts each time"


def test_one_tenants_calls_without_an_answer_open_the_breaker():
    """Deputy may serve a single customer, and must not wait for an AWS that is away."""
    breaker = Breaker()
    fail(breaker, SILENCE[0], 10, TENANT)
    assert breaker.is_open


def test_what_is_no_word_of_awss_changes_nothing():
    """A caller that went away in the middle says nothing about AWS."""
    breaker = Breaker()
    fail(breaker, SILENCE[0], 9)
    for error in (KeyboardInterrupt(), AssertionError()):
        with pytest.raises(type(error)), breaker.call(TENANT):
            raise error
    fail(breaker, SILENCE[0])
    assert breaker.is_open


def test_a_failed_trial_keeps_the_breaker_open_for_another_while(opened, stopped_clock):
    for _ in range(2):
        stopped_clock.move(OPEN)
        fail(opened, SILENCE[0])
        assert opened.is_open
        assert shut_out(opened)


def test_of_many_who_come_at_the_same_moment_one_tries(opened, stopped_clock):
    stopped_clock.move(OPEN)
    ready, let_in, refused, go_on = threading.Barrier(16), [], [], threading.Event()

    def come():
        ready.wait(60)
        try:
            with opened.call(TENANT):
                let_in.append(1)
                go_on.wait(10)
        except Unavailable:
            refused.append(1)
            if len(refused) == 15:
                go_on.set()

    with ThreadPoolExecutor(16) as pool:
        for running in [pool.submit(come) for _ in range(16)]:
            running.result(60)
    assert len(let_in) == 1
    assert not opened.is_open


def test_the_breaker_logs_once_when_it_opens_and_once_when_it_closes(stopped_clock):
    breaker = Breaker()
    with capture_logs() as lines:
        fail(breaker, SILENCE[0], 10)
        for _ in range(20):
            shut_out(breaker)
        stopped_clock.move(OPEN)
        fail(breaker, SILENCE[0])
        stopped_clock.move(OPEN)
        for _ in range(3):
            assert not shut_out(breaker)
    events = [line["event"] for line in lines]
    assert [event for event in events if event != "aws.unreachable"] == ["aws.silent", "aws.back"]


# --- in the service ---


class Own:
    """A process of its own, whose breaker nobody else uses; one customer's role that can be
    struck, and a neighbour's.
    """

    def __init__(self, app, key, roles, faults):
        self.api = Api(app, key)
        self.services = app.extensions["deputy"]
        self.struck, self.neighbour = (place(self.services, role) for role in roles)
        self.role, self.faults = roles[0], faults

    @property
    def sts(self):
        return self.services.issuer._sts

    def ask(self, connection, status, times=1):
        for _ in range(times):
            self.api("POST", connection.path(), expect=status)

    def silence(self, kind="error"):
        """Ten in a row."""
        self.faults.add(kind, role_arn=self.role.arn)
        self.ask(self.struck, 503, times=10)

    def ready(self, status):
        return self.api.with_key(None)("GET", "/readyz", expect=status)


@pytest.fixture(scope="module")
def roles(app, aws, vendor, config) -> list[Role]:
    return [
        Role.of(Customer(aws), config.aws.broker.arn, app.extensions["deputy"]) for _ in range(2)
    ]


@pytest.fixture
def own(config, admin, roles, faults) -> Iterator[Own]:
    app = create_app(config)
    app.testing = False
    yield Own(app, admin.key, roles, faults)
    app.extensions["deputy"].db.engine.dispose()


def test_a_throttled_aws_is_left_alone_for_a_while(own, aws, monkeypatch):
    monkeypatch.setattr("app.aws.breaker._OPEN_SECONDS", 30)
    own.faults.add("throttle")
    for _ in range(5):
        own.ask(own.struck, 503)
        own.ask(own.neighbour, 503)
    calls = len(aws.sts_calls)
    for each in (own.struck, own.neighbour):
        response = own.api.raw("POST", each.path())
        assert (response.status_code, response.get_json()["code"]) == (503, "aws_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
    assert len(aws.sts_calls) == calls, "said at once, and not asked"
    assert "aws" in own.ready(503)["errors"]


def test_a_silent_aws_ends_readiness_until_it_answers_anybody_and_cached_credentials_are_served(
    own, stopped_clock
):
    """A load balancer sends nobody to a process that is not ready, so readiness must find out by
    itself, too.
    """
    own.ask(own.neighbour, 200)
    for by_readiness in (True, False):
        own.silence()
        assert own.sts.is_silent
        own.ready(503)
        own.ask(own.neighbour, 200, times=3)
        own.faults.clear()
        stopped_clock.move(OPEN)
        if not by_readiness:
            own.ask(own.struck, 200)
        own.ready(200)
        if by_readiness:
            assert not own.sts.is_silent
