"""A role that reads itself: what is asked, with which session, and what is made of every answer."""

import json
import time

import pytest

from app.aws.breaker import Breaker
from app.aws.own_role import session_policy
from app.aws.sts import INERT_POLICY, Refused, Sts, Unavailable
from app.config import Broker
from app.ids import Grant, RoleArn, new_external_id
from tests.aws.fake_sts import ACCOUNT, SESSION, WHO, FakeSts, assumed, error, role

ARN = f"arn:aws:iam::{ACCOUNT}:role/path/deputy-0123abcd"
GRANT = Grant(RoleArn.parse(ARN), new_external_id())
BROKER = Broker.parse("arn:aws:iam::111122223333:role/DeputyBroker")
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
READS = ["iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies"]


@pytest.fixture(scope="module")
def http():
    server = FakeSts()
    yield server
    server.close()


@pytest.fixture(scope="module")
def made(http):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ACCESS_KEY_ID": "AKIABROKER", "AWS_SECRET_ACCESS_KEY": "x"}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", http.url)
        made = Sts("eu-west-1", BROKER)
        made._api._own_credentials()
    yield made
    made._api.close()
    made._own_role._api.close()


@pytest.fixture
def sts(made, http):
    made._own_role._breaker = Breaker()
    http.requests.clear()
    return made


def read(sts, http, *answers, again=False):
    """What a proof is told of the trust policy, after IAM has given these answers."""
    http.answers = [(200, assumed()), *answers, (200, WHO)]
    told = []
    if again:
        assert sts.probe_again(GRANT, told.append) == "AROAEXAMPLE"
    else:
        assert sts.probe_own(GRANT, told.append) == (ACCOUNT, "AROAEXAMPLE")
    [found] = told
    return found


def actions(http):
    return [form["Action"] for form, _ in http.requests]


def test_the_roles_own_session_reads_it_and_the_session_may_do_nothing_else(sts, http):
    assert read(sts, http, (200, role(json.dumps(TRUST)))) == TRUST
    assert actions(http) == ["AssumeRole", "GetRole", "GetCallerIdentity"]
    (assume, _), (asked, headers), _ = http.requests
    assert json.loads(assume["Policy"]) == {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": READS, "Resource": ARN}],
    }
    assert assume["DurationSeconds"] == "900"
    assert asked == {"Action": "GetRole", "Version": "2010-05-08", "RoleName": "deputy-0123abcd"}
    assert f"Credential={SESSION.access_key_id}/" in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] == SESSION.session_token
    assert "/us-east-1/iam/aws4_request" in headers["Authorization"], "IAM is signed for one region of a partition"


def test_the_last_call_of_a_routine_proof_reads_it_too(sts, http):
    assert read(sts, http, (200, role(json.dumps(TRUST))), again=True) == TRUST
    assert actions(http) == ["AssumeRole", "GetRole"]


def test_without_being_asked_a_session_reads_nothing_and_is_inert(sts, http):
    http.answers = [(200, assumed()), (200, WHO), (200, assumed())]
    sts.probe_own(GRANT)
    sts.probe_again(GRANT)
    assert actions(http) == ["AssumeRole", "GetCallerIdentity", "AssumeRole"]
    assert [form["Policy"] for form, _ in http.requests if "Policy" in form] == [INERT_POLICY] * 2


def test_strangers_sessions_are_inert(sts, http):
    http.answers = [(200, assumed())]
    sts.probe_missing(GRANT)
    sts.probe_foreign(GRANT)
    assert [form["Policy"] for form, _ in http.requests] == [INERT_POLICY] * 2


def test_a_path_is_no_pattern_that_other_roles_match():
    """The name follows the path, and an account has one role of a name."""
    found = json.loads(session_policy(RoleArn.parse("arn:aws:iam::444455556666:role/a*b?c${x}/deputy-1")))
    assert found["Statement"][0]["Resource"] == "arn:aws:iam::444455556666:role/a?b?c?{x}/deputy-1"


def test_a_role_that_may_not_read_itself_is_told_apart(sts, http):
    assert isinstance(read(sts, http, (403, error("AccessDenied"))), Refused)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, error("ServiceFailure")),
        (503, ""),
        (400, error("Throttling")),
        (404, error("NoSuchEntity")),
        (403, error("InvalidClientTokenId")),
        (403, "<html>AccessDenied by the proxy</html>"),
        (200, ""),
        (200, "<html>Sign in</html>"),
        (200, "<GetRoleResponse><GetRoleResult></GetRoleResult></GetRoleResponse>"),
        (200, role(json.dumps(TRUST), role_id="AROASOMEBODYELSE")),
    ],
)
def test_what_iam_does_not_answer_changes_nothing_and_is_asked_once(sts, http, status, body):
    assert isinstance(read(sts, http, (status, body)), Unavailable)
    assert actions(http) == ["AssumeRole", "GetRole", "GetCallerIdentity"]


@pytest.mark.parametrize("text", ["", "{", '{"a": 1, "a": 2}', "{" * 100])
def test_what_is_not_json_is_a_policy_that_cannot_be_read(sts, http, text):
    assert read(sts, http, (200, role(text))) is None


def test_it_waits_for_two_seconds_at_most(sts):
    assert sts._own_role._api._pool.timeout.total == 2


def test_a_silent_iam_is_left_alone_and_sts_goes_on(sts, http):
    for _ in range(10):
        read(sts, http, (500, error("ServiceFailure")))
    http.requests.clear()
    assert isinstance(read(sts, http), Unavailable)
    assert actions(http) == ["AssumeRole", "GetCallerIdentity"]
    assert not sts.is_silent


@pytest.mark.parametrize(
    ("region", "more", "url", "signed_for"),
    [
        ("eu-west-1", {}, "https://iam.amazonaws.com/", "us-east-1"),
        ("us-gov-east-1", {}, "https://iam.us-gov.amazonaws.com/", "us-gov-west-1"),
        ("cn-northwest-1", {}, "https://iam.cn-north-1.amazonaws.com.cn/", "cn-north-1"),
        ("eu-west-1", {"AWS_USE_FIPS_ENDPOINT": "true"}, "https://iam-fips.amazonaws.com/", "us-east-1"),
        ("eu-west-1", {"AWS_ENDPOINT_URL": "http://localhost:4566"}, "http://localhost:4566/", "us-east-1"),
        ("eu-west-1", {"AWS_ENDPOINT_URL_IAM": "https://iam.internal"}, "https://iam.internal/", "us-east-1"),
        ("eu-west-1", {"AWS_ENDPOINT_URL_STS": "https://sts.internal"}, "https://iam.amazonaws.com/", "us-east-1"),
    ],
)
def test_it_finds_iam_where_boto3_finds_it(monkeypatch, region, more, url, signed_for):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    api = Sts(region, BROKER)._own_role._api
    assert (api.url, api._region) == (url, signed_for)


def test_a_hanging_iam_is_given_up(sts, http, monkeypatch):
    """The verdict waits no longer than that: here for a fraction of a second, with a server that never answers."""
    monkeypatch.setattr(sts._own_role._api._pool, "timeout", sts._own_role._api._pool.timeout.clone())
    sts._own_role._api._pool.timeout.total = 0.2
    http.hangs = "GetRole"
    began = time.monotonic()
    try:
        assert isinstance(read(sts, http), Unavailable)
    finally:
        http.hangs = None
    assert time.monotonic() - began >= 0.2
