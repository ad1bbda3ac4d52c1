"""The door to customers' accounts: exactly what is sent, and how each answer is read.

Over HTTP, before a server that answers what it is told (tests/aws/fake_sts.py). Roles that behave
are in tests/api.
"""

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import yaml
from botocore.credentials import ReadOnlyCredentials
from botocore.retries.quota import RetryQuota
from botocore.utils import ContainerMetadataFetcher
from cachetools import TTLCache
from urllib3.exceptions import ConnectTimeoutError, ProtocolError, ReadTimeoutError, SSLError

from app.aws.breaker import Breaker
from app.aws.errors import Misconfigured, Refused, StsError, Unavailable
from app.aws.role_reader import session_policy
from app.aws.stack_messages import RegistrationQueue
from app.aws.sts import INERT_POLICY
from app.concurrency.places import Places, held_places
from app.ids import EXTERNAL_ID_PATTERN, Broker, Grant, RoleArn, new_external_id, new_id
from dev.ports import free_port
from tests.aws.fake_sts import (
    ACCOUNT,
    NAMESPACE,
    OWN_KEYS,
    PRINCIPAL,
    PROOF_NAMES,
    SESSION,
    WHO,
    FakeSts,
    assumed,
    error,
    identity,
    new_sts,
    role,
)
from tests.support.certificates import self_signed
from tests.support.metrics import Counted

SESSION_OF_BROKER = (  # the path is not shown
    "arn:aws:sts::111122223333:assumed-role/DeputyBroker/i-1"
)
ARN = f"arn:aws:iam::{ACCOUNT}:role/path/deputy-0123abcd"
GRANT = Grant(RoleArn.parse(ARN), new_external_id(), new_id())
# What AWS says when it refuses: it names the broker and its session.
AWS_SAYS = f"User: {SESSION_OF_BROKER} is not authorized on resource: {ARN}"

NOTHING_MORE = (500, "the test told nothing more")


class Patient(Breaker):
    """A breaker that never opens, for a test of what happens behind it."""

    is_open = False  # type: ignore[assignment]


class Door:
    """The door, and what AWS will answer; it does not try twice."""

    def __init__(self, sts, server):
        self.sts, self._server = sts, server
        server.answers = [NOTHING_MORE]

    @property
    def calls(self):
        """What was asked: each action with its form, in order."""
        return [
            (
                form["Action"],
                {name: form[name] for name in form if name not in {"Action", "Version"}},
            )
            for form, _ in self._server.requests
        ]

    @property
    def asked_as(self):
        """Who asked: each call's access key, and its session token."""
        return [
            (
                headers["Authorization"].split("Credential=")[1].split("/")[0],
                headers.get("X-Amz-Security-Token"),
            )
            for _, headers in self._server.requests
        ]

    @property
    def expects_more(self):
        return self._server.answers != [NOTHING_MORE]

    def answers(self, status, body):
        self._server.answers.insert(-1, (status, body))
        return self

    def let_in(self):
        return self.answers(200, assumed())

    def read_role(self):
        return self.let_in().answers(200, role("{}"))

    def refuse(self, code, message=AWS_SAYS, status=403):
        return self.answers(status, error(code, message))

    def say_who(self, account=ACCOUNT):
        return self.is_somebody(f"arn:aws:sts::{account}:assumed-role/r/x")

    def is_somebody(self, arn):
        """Whose credentials these are: asked of a proof's session, and of ours when a role
        refuses its own ID.
        """
        return self.answers(
            200, identity(UserId="AROAEXAMPLE:x", Account=arn.split(":")[4], Arn=arn)
        )

    def assume(self, policy=None):
        return self.sts.assume(GRANT, session_name="deputy-x", duration_seconds=900, policy=policy)


@pytest.fixture
def server(http):
    http.answers, http.requests, http.paths = [(200, WHO)], [], []
    return http


@pytest.fixture
def impostor(tmp_path):
    """STS's answers, under a certificate that nobody vouches for but itself."""
    server = FakeSts(self_signed(tmp_path))
    server.answers = [(200, assumed())]
    yield server
    server.close()


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """A process without any AWS settings; `environment(NAME=value)` adds some."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setattr("app.aws.query_api.PAUSE", 0)
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)

    def add(**more):
        for name, value in more.items():
            monkeypatch.setenv(name, value)

    return add


@pytest.fixture
def live(server, sts, monkeypatch):
    """The door as it is, which tries twice."""
    monkeypatch.setattr("app.aws.query_api.PAUSE", 0)
    sts._api.breaker, sts.broker = Breaker(), PRINCIPAL
    sts._api._quota = RetryQuota()
    return sts


@pytest.fixture
def door(live, server):
    live._api._quota = RetryQuota(0)
    live._confirmed.clear()  # another test's refusal
    door = Door(live, server)
    yield door
    assert not door.expects_more


# --- what is sent ---


PROBE = {"RoleArn": ARN, "DurationSeconds": "900", "Policy": INERT_POLICY}


def probes(door):
    """What was sent, without the probes' session names, each of which is looked at."""
    calls = [(name, dict(sent)) for name, sent in door.calls]
    for name, sent in calls:
        if name == "AssumeRole":
            assert PROOF_NAMES.recognizes(sent.pop("RoleSessionName"), sent["RoleArn"])
    return calls


def test_each_call_of_a_proof_waits_for_its_place_in_the_budget(door):
    places = []

    @contextmanager
    def place():
        places.append(len(door.calls))
        yield

    door.read_role().say_who()
    door.sts.with_budget(place).probe_own(GRANT)
    assert places == [0, 2], "IAM has a budget of its own"


def test_a_retry_waits_for_its_place_in_the_budget_too(live, server):
    places = []

    @contextmanager
    def place():
        places.append(len(server.requests))
        yield

    server.answers = [(500, error("InternalFailure")), (200, assumed())]
    assume(live.with_budget(place))
    assert places == [0, 1]


def test_a_request_has_no_place_while_aws_is_asked(live, server, monkeypatch):
    held, pool = [], live._api._pool
    ask = pool.urlopen

    def urlopen(*args, **options):
        held.append(held_places.get())
        return ask(*args, **options)

    monkeypatch.setattr(pool, "urlopen", urlopen)
    server.answers = [(200, assumed())]
    with Places(at_once=1, waiting=0).place(0.0, RuntimeError):
        assume(live)
    assert held == [()]


def test_the_own_probe_sends_the_tenants_external_id_and_asks_who_it_became(door):
    """The last call of a proof only tries the ID, and its session can do nothing. All calls are the
    broker's, but what a session asks of itself.
    """
    door.read_role().say_who().let_in()
    probe = door.sts.probe_own(GRANT)
    assert (probe.account_id, probe.role_unique_id) == (ACCOUNT, "AROAEXAMPLE")
    assert door.sts.probe_again(GRANT) == "AROAEXAMPLE"
    sent = PROBE | {"ExternalId": GRANT.external_id}
    assert probes(door) == [
        ("AssumeRole", sent | {"Policy": session_policy(GRANT.role_arn)}),
        ("GetRole", {"RoleName": GRANT.role_arn.name}),
        ("GetCallerIdentity", {}),
        ("AssumeRole", sent),
    ]
    broker, session = ("AKIABROKER", None), (SESSION.access_key_id, SESSION.session_token)
    assert door.asked_as == [broker, session, session, broker]


def test_the_missing_probe_sends_no_external_id_at_all_and_hands_nothing_out(door):
    assert door.let_in().sts.probe_missing(GRANT) is None
    assert probes(door) == [("AssumeRole", PROBE)]


def test_every_call_about_a_role_counts_as_its_tenants_and_no_others(door, monkeypatch):
    """The breaker opens for all only when several tenants' calls fail."""
    counted, call = [], Breaker.call
    monkeypatch.setattr(
        Breaker, "call", lambda self, tenant: counted.append(tenant) or call(self, tenant)
    )
    for grant in (GRANT, replace(GRANT, external_id="acme-1")):
        door.let_in().sts.probe_missing(grant)
        door.let_in().sts.probe_foreign(grant)
        door.let_in().sts.probe_again(grant)
        door.let_in().sts.assume(grant, session_name="x", duration_seconds=900, policy=None)
    assert counted == [str(GRANT.tenant_id)] * 8


def test_the_foreign_probe_sends_one_that_was_never_issued_and_hands_nothing_out(door):
    sent = []
    for _ in range(5):
        assert door.let_in().sts.probe_foreign(GRANT) is None
        name, params = probes(door)[-1]
        sent.append(params.pop("ExternalId"))
        assert (name, params) == ("AssumeRole", PROBE)
    assert len({*sent, GRANT.external_id}) == 6
    for value in sent:
        assert re.fullmatch(EXTERNAL_ID_PATTERN, value)
        assert (value[:20], value[-20:]) == (GRANT.external_id[:20], GRANT.external_id[-20:])


CANARY, STRANGER = (
    RoleArn.parse(f"arn:aws:iam::222233334444:role/deputy-{name}")
    for name in ("canary", "stranger")
)


@pytest.fixture
def tested(door):
    """The door of a deployment with both roles, and nothing known of its own credentials."""
    door.sts.canary, door.sts.stranger = CANARY, STRANGER
    yield door
    door.sts.canary = door.sts.stranger = None


def test_the_vendors_own_roles_are_tried_as_customers_roles_are(tested):
    """By the broker, and by the stranger, whose session the broker opens."""
    sts = tested.sts
    assert tested.let_in().sts.open_stranger() == SESSION
    for call in (
        lambda: sts.probe_as_stranger(SESSION, GRANT),
        lambda: sts.probe_canary(with_id=False),
        lambda: sts.probe_canary(with_id=True),
        lambda: sts.probe_canary_as_stranger(SESSION),
    ):
        tested.let_in()
        assert call() is None
    opened, role, *canary = [sent for _, sent in probes(tested)]
    assert opened == {"RoleArn": STRANGER.text, "DurationSeconds": "3600"}
    assert role == PROBE | {"ExternalId": GRANT.external_id}
    ids = [sent.pop("ExternalId", "") for sent in canary]
    assert [bool(re.fullmatch(EXTERNAL_ID_PATTERN, value)) for value in ids] == [False, True, True]
    assert canary == [PROBE | {"RoleArn": CANARY.text}] * 3
    broker, stranger = ("AKIABROKER", None), (SESSION.access_key_id, SESSION.session_token)
    assert tested.asked_as == [broker, stranger, broker, broker, stranger]


def test_a_role_that_is_not_configured_is_never_asked(door):
    for call in (door.sts.open_stranger, lambda: door.sts.probe_canary(with_id=True)):
        with pytest.raises(RuntimeError):
            call()
    assert door.calls == []


def test_the_inert_policy_denies_everything_in_the_fewest_characters():
    assert json.loads(INERT_POLICY) == {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}],
    }
    assert " " not in INERT_POLICY


# --- what is made of AWS's refusals ---

CALLS = {
    "assume": lambda door: door.assume(),
    "probe_own": lambda door: door.sts.probe_own(GRANT),
    "probe_again": lambda door: door.sts.probe_again(GRANT),
    "probe_missing": lambda door: door.sts.probe_missing(GRANT),
    "probe_foreign": lambda door: door.sts.probe_foreign(GRANT),
}
VENDORS_OWN = {
    "probe_canary": lambda door: door.sts.probe_canary(with_id=False),
    "open_stranger": lambda door: door.sts.open_stranger(),
}
OTHER_SESSION = "arn:aws:sts::111122223333:assumed-role/Other/i-1"

# Codes and statuses; the last ones sound like a refusal, and are not AWS's word for one.
INCONCLUSIVE = yaml.safe_load("""
- [Throttling, 400, Rate exceeded]
- [TooManyRequestsException, 429, ""]
- [SlowDown, 503, ""]
- [ExpiredToken, 403, ""]
- [InvalidClientTokenId, 403, ""]
- [SignatureDoesNotMatch, 403, Signature expired]
- [OptInRequired, 403, ""]
- [InternalFailure, 500, ""]
- [RequestTimeout, 408, ""]
- [ValidationError, 400, Request ARN is invalid]
- [ValidationError, 400, ""]
- [RegionDisabledException, 403, "STS is not activated in this region for account:444455556666."]
- [AccessDeniedException, 403, null]
- [accessdenied, 403, null]
- ["AccessDenied ", 403, null]
- ["403", 403, null]
- ["", 403, null]
- [UnauthorizedOperation, 403, null]
- [Forbidden, 403, null]
- [Whatever.Comes.Next, 400, "AccessDenied: not authorized to perform: sts:AssumeRole"]
""")


def test_access_denied_is_a_refusal_of_a_call_that_should_succeed_only_for_the_broker(tested):
    """Nobody can be denied GetCallerIdentity, so even AccessDenied is a fault there."""
    for name, call in (CALLS | VENDORS_OWN).items():
        if name in {"probe_missing", "probe_foreign"}:
            tested.refuse("AccessDenied")
        else:
            for who in (OTHER_SESSION, "arn:aws:iam::111122223333:root"):
                tested.refuse("AccessDenied").is_somebody(who)
                with pytest.raises(Unavailable):
                    call(tested)
            for code in ("Throttling", "ExpiredToken", "InternalFailure", "AccessDenied"):
                tested.refuse("AccessDenied").refuse(code)
                with pytest.raises(Unavailable):
                    call(tested)
            tested.refuse("AccessDenied").is_somebody(SESSION_OF_BROKER)
        with pytest.raises(Refused) as caught:
            call(tested)
        assert str(caught.value) == "", "AWS's text names the broker"
        tested.sts._confirmed.clear()


def test_nothing_else_is_a_refusal(door):
    door.sts._api.breaker = Patient()
    for code, status, message in INCONCLUSIVE:
        for call in CALLS.values():
            door.refuse(code, AWS_SAYS if message is None else message, status)
            with pytest.raises(StsError) as caught:
                call(door)
            assert not isinstance(caught.value, Refused), code
            named = code == "RegionDisabledException"
            assert isinstance(caught.value, Misconfigured) == named, (code, message)
            assert "111122223333" not in str(caught.value)


def test_what_the_caller_or_the_customer_can_change_is_named(door):
    for code, field, message in yaml.safe_load("""
- - ValidationError
  - duration_seconds
  - The requested DurationSeconds exceeds the MaxSessionDuration set for this role.
- - ValidationError
  - duration_seconds
  - The requested DurationSeconds exceeds the
    1 hour session limit for roles assumed by role chaining.
- [PackedPolicyTooLarge, session_policy, "Packed policy consumes 157% of allotted space."]
- [MalformedPolicyDocument, session_policy, "Syntax errors in policy."]
- [RegionDisabledException, null, "STS is not activated in this region for account:444455556666."]
"""):
        door.refuse(code, message, 400)
        with pytest.raises(Misconfigured) as caught:
            door.assume()
        assert caught.value.field == field
        assert caught.value.detail.endswith(".")
        for theirs in (message, ACCOUNT, "157%", "DurationSeconds"):
            assert theirs not in caught.value.detail


def test_a_session_that_is_denied_its_own_name_is_a_fault_and_no_refusal(door):
    """Nobody can be denied GetCallerIdentity, so this is not the role's answer. A region that is
    off is named also here.
    """
    for code, raised in (
        ("AccessDenied", Unavailable),
        ("ExpiredToken", Unavailable),
        ("Throttling", Unavailable),
        ("RegionDisabledException", Misconfigured),
    ):
        door.read_role().refuse(code)
        with pytest.raises(raised):
            door.sts.probe_own(GRANT)


USER = Broker.parse("arn:aws:iam::111122223333:user/service/deputy")


def test_the_callers_identity_tells_whether_we_are_the_broker(door):
    for broker, good, bad in (
        (
            PRINCIPAL,
            [SESSION_OF_BROKER],
            [
                SESSION_OF_BROKER.replace("DeputyBroker", "deputybroker"),
                SESSION_OF_BROKER.replace("DeputyBroker", "DeputyBroker2"),
                SESSION_OF_BROKER.replace("111122223333", "111122223334"),
                SESSION_OF_BROKER.replace("arn:aws:", "arn:aws-cn:"),
                SESSION_OF_BROKER.replace("DeputyBroker/i-1", "Other/DeputyBroker"),
                "arn:aws:iam::111122223333:role/DeputyBroker",
                "arn:aws:sts::111122223333:federated-user/DeputyBroker",
                "arn:aws:iam::111122223333:root",
            ],
        ),
        (
            USER,
            [
                "arn:aws:iam::111122223333:user/service/deputy",
                "arn:aws:iam::111122223333:user/deputy",
            ],
            [
                "arn:aws:iam::111122223333:user/deputy/other",
                "arn:aws:sts::111122223333:assumed-role/deputy/i-1",
                "arn:aws:sts::111122223333:federated-user/deputy",
            ],
        ),
    ):
        door.sts.broker = broker
        for arn in (*good, *bad):
            assert door.is_somebody(arn).sts.is_broker() is (arn in good), arn


def test_the_account_is_the_one_that_aws_names_in_both_answers_and_not_the_arns(door):
    """Somebody sent the ARN; the proof compares its account with the one that AWS names."""
    elsewhere = replace(GRANT, role_arn=replace(GRANT.role_arn, account_id="777788889999"))
    door.read_role().say_who()
    assert door.sts.probe_own(elsewhere).account_id == ACCOUNT
    door.read_role().say_who("777788889999")
    with pytest.raises(Unavailable):
        door.sts.probe_own(GRANT)


# --- how often we ask who we are, when roles refuse us ---


def refused(door, *, asks):
    """One more role refuses us; `asks`: whether AWS is then asked who we are."""
    before = len(door.asked_as)
    door.refuse("AccessDenied")
    if asks:
        door.is_somebody(SESSION_OF_BROKER)
    with pytest.raises(Refused):
        door.assume()
    assert len(door.asked_as) - before == (2 if asks else 1)


def test_after_many_refusals_aws_is_asked_once_in_five_seconds_who_we_are(door, monkeypatch):
    """Not being the broker is not remembered, and other credentials are asked about at once."""
    clock = [1000.0]
    monkeypatch.setattr(
        door.sts, "_confirmed", TTLCache(1, door.sts._confirmed.ttl, lambda: clock[0])
    )
    door.refuse("AccessDenied").is_somebody("arn:aws:iam::111122223333:root")
    with pytest.raises(Unavailable):
        door.assume()
    refused(door, asks=True)
    for _ in range(3):
        refused(door, asks=False)
    clock[0] += 6
    refused(door, asks=True)
    another = ReadOnlyCredentials("AKIAANOTHERKEY", "x", None)
    monkeypatch.setattr(door.sts._api, "own_credentials", lambda: another)
    refused(door, asks=True)
    refused(door, asks=False)


def test_credentials_that_are_renewed_and_have_expired_already_are_none_and_counted(
    door, monkeypatch
):
    """botocore raises a RuntimeError then. A clock that is hours ahead is the usual cause."""
    stale = Mock(get_frozen_credentials=Mock(side_effect=RuntimeError("still expired")))
    monkeypatch.setattr(door.sts._api._boto, "get_credentials", lambda: stale)
    counted = Counted("deputy_aws_calls_total", action="AssumeRole", outcome="unreachable")
    with pytest.raises(StsError):
        door.assume()
    assert counted.more == 1


# --- the endpoint, and how it is asked ---


@pytest.mark.parametrize(
    ("region", "setting", "expected"),
    yaml.safe_load("""
    - - eu-west-1
      - ""
      - ["https://sts.eu-west-1.amazonaws.com/", &iam "https://iam.amazonaws.com/", us-east-1]
    - - us-east-1
      - STS_REGIONAL_ENDPOINTS=legacy
      - ["https://sts.us-east-1.amazonaws.com/", *iam , us-east-1]
    - - us-east-1
      - USE_FIPS_ENDPOINT=true
      - ["https://sts-fips.us-east-1.amazonaws.com/", "https://iam-fips.amazonaws.com/", us-east-1]
    - - us-gov-east-1
      - ""
      - - https://sts.us-gov-east-1.amazonaws.com/
        - https://iam.us-gov.amazonaws.com/
        - us-gov-west-1
    - - cn-northwest-1
      - ""
      - - https://sts.cn-northwest-1.amazonaws.com.cn/
        - https://iam.cn-north-1.amazonaws.com.cn/
        - cn-north-1
    - - eu-west-1
      - ENDPOINT_URL_STS=https://sts.internal
      - ["https://sts.internal/", *iam , us-east-1]
    - - eu-west-1
      - ENDPOINT_URL_IAM=https://iam.internal
      - ["https://sts.eu-west-1.amazonaws.com/", "https://iam.internal/", us-east-1]
    - - eu-west-1
      - ENDPOINT_URL=http://localhost:4566
      - ["http://localhost:4566/", "http://localhost:4566/", us-east-1]
    """),
)
def test_sts_and_iam_are_called_where_boto3_calls_them(
    environment, monkeypatch, region, setting, expected
):
    """STS at the regional endpoint; IAM at its partition's, and signed for that one's region."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    name, _, value = setting.partition("=")
    environment(**({f"AWS_{name}": value} if name else {}))
    made = new_sts(region)
    iam = made._iam
    assert [made._api.url, iam.url, iam._region] == expected


def test_sts_has_two_seconds_to_answer_and_1024_connections(sts):
    pool = sts._api._pool
    assert (pool.timeout.connect_timeout, pool.timeout.read_timeout) == (1, 2)
    assert pool.pool.maxsize == 1024


@pytest.fixture
def public(environment, monkeypatch):
    """A process that is told neither an endpoint nor CAs, until `public(NAME=value)`."""
    for name in (
        "AWS_ENDPOINT_URL",
        "REQUESTS_CA_BUNDLE",
        "AWS_CA_BUNDLE",
        "HTTPS_PROXY",
        "https_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    return environment


def test_certificates_are_checked_with_the_cas_that_it_was_told(public, tmp_path):
    pool = new_sts()._api._pool
    assert pool.cert_reqs == "CERT_REQUIRED"
    assert Path(pool.ca_certs).is_file()
    for name in ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):  # the last one wins
        public(**{name: f"{tmp_path}/{name}"})
        pool = new_sts()._api._pool
        assert (pool.cert_reqs, pool.ca_certs) == ("CERT_REQUIRED", f"{tmp_path}/{name}")


def test_a_self_signed_certificate_is_unavailable(environment, impostor, tmp_path):
    """A proxy could otherwise claim that a role refuses strangers."""
    environment(AWS_ENDPOINT_URL=impostor.url, **OWN_KEYS)
    sts = new_sts()
    with pytest.raises(Unavailable):
        sts.probe_missing(GRANT)
    assert impostor.requests == []
    environment(AWS_CA_BUNDLE=str(tmp_path / "ca.pem"))
    sts = new_sts()
    sts.probe_missing(GRANT)
    assert len(impostor.requests) == 1
    sts._api._pool.close()


def test_sts_is_called_through_the_proxy_of_the_environment(public, server):
    """Plain HTTP, so that the proxy can be asked what it heard: the whole address, and who is
    allowed to use it.
    """
    public(
        AWS_ENDPOINT_URL="http://sts.internal",
        HTTP_PROXY=server.url.replace("//", "//us:er@"),
        **OWN_KEYS,
    )
    server.answers = [(200, assumed())]
    sts = new_sts()
    assert assume(sts) == SESSION
    [(_, headers)] = server.requests
    assert headers["Host"] == "sts.internal"
    assert headers["Proxy-Authorization"] == "Basic dXM6ZXI="
    assert server.paths == ["http://sts.internal/"]
    sts._api._pool.close()
    public(HTTPS_PROXY="http://proxy.internal:3128", AWS_ENDPOINT_URL="https://sts.internal")
    made = new_sts()._api
    assert (made._pool.proxy.host, made._target) == ("proxy.internal", "/")


def test_retries_are_no_storm(live, server):
    """A hundred in a row, and then each call is tried once, until calls succeed again."""
    live._api.breaker = Patient()
    server.answers = [(400, error("Throttling"))]
    for _ in range(120):
        with pytest.raises(Unavailable):
            assume(live)
    assert len(server.requests) == 220
    server.answers = [(200, assumed())]
    for _ in range(5):
        assume(live)
    server.requests.clear()
    server.answers = [(503, ""), (200, assumed())]
    assert assume(live) == SESSION
    assert len(server.requests) == 2


# --- answers that are none ---


def assume(sts):
    return sts.assume(GRANT, session_name="deputy-x", duration_seconds=900, policy=None)


def test_issuing_sends_the_grant_and_what_it_was_given_as_aws_documents_it(live, server):
    """Without a policy none is sent: an empty one would be malformed, and an inert one would be
    worth nothing.
    """
    server.answers = [(200, assumed())]
    assert assume(live) == SESSION
    assert SESSION.expires_at.utcoffset() == timedelta(0)
    policy = '{"Statement":[]}'
    live.assume(GRANT, session_name="deputy-abc-1", duration_seconds=1234, policy=policy)
    (sent, headers), (limited, _) = server.requests
    assert sent == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": ARN,
        "RoleSessionName": "deputy-x",
        "DurationSeconds": "900",
        "ExternalId": GRANT.external_id,
    }
    assert limited == sent | {
        "RoleSessionName": "deputy-abc-1",
        "DurationSeconds": "1234",
        "Policy": policy,
    }
    assert "/eu-west-1/sts/aws4_request" in headers["Authorization"]
    assert "Credential=AKIABROKER/" in headers["Authorization"]


def test_a_passing_failure_is_tried_twice_and_then_unavailable(live, server):
    html = "<html><body>Bad Gateway</body></html>"
    for status, body in (
        (500, error("InternalFailure")),
        (503, ""),
        (502, html),
        (400, error("Throttling")),
    ):
        server.requests.clear()
        server.answers = [(status, body)]
        with pytest.raises(Unavailable):
            assume(live)
        assert len(server.requests) == 2, status
        server.answers = [(status, body), (200, assumed())]
        assert assume(live) == SESSION


def test_a_proxys_refusal_is_not_the_roles(live, server):
    live._api.breaker = Patient()
    for status, body in (
        (403, ""),
        (403, "<html><body>AccessDenied by the proxy</body></html>"),
        (403, "AccessDenied"),
        (403, error("")),
        (407, "Proxy Authentication Required"),
        (404, "AccessDenied"),
    ):
        server.answers = [(status, body)]
        for call in (live.probe_missing, live.probe_foreign):
            with pytest.raises(Unavailable):
                call(GRANT)
    server.requests.clear()
    server.answers = [(403, error("AccessDenied"))]
    with pytest.raises(Refused):
        live.probe_missing(GRANT)
    assert len(server.requests) == 1, "not asked twice: it was an answer"


def test_an_answer_that_is_none_is_unavailable(live, server):
    live._api.breaker = Patient()
    for body in (
        "",
        "not xml",
        "<html><body>Sign in to the hotel's network</body></html>",
        f"<AssumeRoleResponse {NAMESPACE}></AssumeRoleResponse>",
        (
            "<AssumeRoleResponse"
            f" {NAMESPACE}><AssumeRoleResult></AssumeRoleResult></AssumeRoleResponse>"
        ),
        *(
            assumed(**{name: None})
            for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
        ),
        *(assumed(**{name: None}) for name in ("Arn", "AssumedRoleId")),
        *(
            assumed(**change)
            for change in ({"Expiration": "tomorrow"}, {"Arn": "arn:aws"}, {"Arn": ""})
        ),
        assumed(
            AssumedRoleId=""
        ),  # an empty id would be pinned, and would match the next empty one
        assumed(AssumedRoleId=":deputy"),
    ):
        server.answers = [(200, body)]
        with pytest.raises(Unavailable):
            pytest.fail(f"{body}: {assume(live)}")


def test_an_answer_to_who_are_you_that_is_none_is_unavailable(live, server):
    live._api.breaker = Patient()
    for body in ("", "not xml", "<html></html>", identity(), identity(Arn="x", Account="")):
        server.answers = [(200, body)]
        with pytest.raises(Unavailable):
            live.is_broker()
        server.answers = [(200, assumed()), (200, role("{}")), (200, body)]
        with pytest.raises(Unavailable):
            live.probe_own(GRANT)


@pytest.mark.parametrize("kind", [ReadTimeoutError, ConnectTimeoutError, SSLError, ProtocolError])
def test_a_failed_connection_is_unavailable_after_two_attempts(live, monkeypatch, kind):
    tried = []

    def fail(*_, **__):
        tried.append(1)
        raise kind.__new__(kind)

    monkeypatch.setattr(live._api._pool, "urlopen", fail)
    for call in CALLS.values():
        with pytest.raises(Unavailable):
            call(SimpleNamespace(sts=live, assume=lambda: assume(live)))
    assert len(tried) == 2 * len(CALLS)


# --- our own credentials ---


def test_sts_is_called_again_when_the_credentials_endpoint_is_back(environment, server):
    environment(
        AWS_ENDPOINT_URL=server.url,
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://127.0.0.1:{free_port()}/credentials",
    )
    sts = new_sts()
    for _ in range(2):
        with pytest.raises(Unavailable):
            sts.is_broker()
    environment(AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{server.url}/credentials")
    assert sts.is_broker()
    [(_, headers)] = server.requests
    assert "Credential=ASIABROKERBROKER0001/" in headers["Authorization"]
    sts._api._pool.close()


def test_a_process_can_start_while_the_credentials_endpoint_is_away(environment):
    """Also a command that stops something. It asks for credentials where it reads the queue."""
    environment(AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://127.0.0.1:{free_port()}/credentials")
    queue = RegistrationQueue("us-east-1", "http://127.0.0.1:9/queue")
    with pytest.raises(Unavailable):
        queue.receive(0)


def test_threads_that_come_first_together_all_get_through(environment, server):
    environment(AWS_ENDPOINT_URL=server.url, **OWN_KEYS)
    server.answers = [(200, assumed())]
    sts, found = new_sts(), []
    threads = [threading.Thread(target=lambda: found.append(assume(sts))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SESSION] * 8
    sts._api._pool.close()
