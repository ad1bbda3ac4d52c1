"""A role that reads itself: what is asked, with which session, and what is made of every answer."""

import json
import time
from collections.abc import Mapping
from urllib.parse import quote

import pytest

from app.aws.breaker import Breaker
from app.aws.errors import Refused, Unavailable
from app.aws.role_reader import session_policy
from app.aws.role_view import Decision, RolePolicies, RoleSettings
from app.aws.sts import Sts
from app.ids import Grant, RoleArn, new_external_id, new_id
from tests.aws.fake_sts import ACCOUNT, SESSION, WHO, assumed, error, role, said

ARN = f"arn:aws:iam::{ACCOUNT}:role/path/deputy-0123abcd"
GRANT = Grant(RoleArn.parse(ARN), new_external_id(), new_id())
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}],
}
READS = ["iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies"]


@pytest.fixture
def sts(sts, http) -> Sts:
    sts._iam.breaker = Breaker()
    http.requests.clear()
    return sts


def read(sts, http, *answers):
    """The trust policy that a proof reads, or the reason why not, after IAM has given these
    answers.
    """
    http.answers = [(200, assumed()), *answers, (200, WHO)]
    probe = sts.probe_own(GRANT)
    assert (probe.account_id, probe.role_unique_id) == (ACCOUNT, "AROAEXAMPLE")
    settings = probe.settings
    return settings.trust_policy if isinstance(settings, RoleSettings) else settings


def actions(http):
    return [form["Action"] for form, _ in http.requests]


def test_a_roles_own_session_reads_the_role_and_may_do_nothing_else(sts, http):
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
    assert "/us-east-1/iam/aws4_request" in headers["Authorization"], (
        "IAM is signed for one region of a partition"
    )


def test_a_path_is_no_pattern_that_other_roles_match():
    """The name follows the path, and an account has one role of a name."""
    found = json.loads(
        session_policy(RoleArn.parse("arn:aws:iam::444455556666:role/a*b?c${x}/deputy-1"))
    )
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


def test_a_silent_iam_is_left_alone_and_sts_goes_on(sts, http):
    for _ in range(10):
        read(sts, http, (500, error("ServiceFailure")))
    http.requests.clear()
    assert isinstance(read(sts, http), Unavailable)
    assert actions(http) == ["AssumeRole", "GetCallerIdentity"]
    assert not sts.is_silent


def test_a_hanging_iam_is_given_up(sts, http, monkeypatch):
    """The verdict waits two seconds for it at most: here for a fraction of a second, with a server
    that never answers.
    """
    assert sts._iam._pool.timeout.total == 2
    monkeypatch.setattr(sts._iam._pool, "timeout", sts._iam._pool.timeout.clone())
    sts._iam._pool.timeout.total = 0.2
    http.hangs = "GetRole"
    began = time.monotonic()
    try:
        assert isinstance(read(sts, http), Unavailable)
    finally:
        http.hangs = None
    assert time.monotonic() - began >= 0.2


# --- a diagnosis ---

RIGHTS = [("s3:ListBucket", "*"), ("s3:GetObject", "arn:aws:s3:::x/*"), ("ec2:DescribeVpcs", "*")]


def names(*texts):
    return "".join(f"<member>{text}</member>" for text in texts)


def listed(action, list_of, members, marker=""):
    more = (
        f"<IsTruncated>true</IsTruncated><Marker>{marker}</Marker>"
        if marker
        else "<IsTruncated>false</IsTruncated>"
    )
    return 200, said(action, f"<{list_of}>{members}</{list_of}>{more}")


def decided(*members):
    return listed("SimulatePrincipalPolicy", "EvaluationResults", names(*members))


def decision(action, word, more=""):
    return f"<EvalActionName>{action}</EvalActionName><EvalDecision>{word}</EvalDecision>{more}"


def policy(text):
    return 200, said("GetRolePolicy", f"<PolicyDocument>{quote(text, safe='')}</PolicyDocument>")


SETTINGS = (200, role(json.dumps(TRUST)))
NONE = (
    listed("ListRolePolicies", "PolicyNames", ""),
    listed("ListAttachedRolePolicies", "AttachedPolicies", ""),
)


def view(sts, http, *answers, rights=()):
    http.answers = [(200, assumed()), *answers]
    return sts.view(GRANT, "AROAEXAMPLE", rights)


def test_a_diagnosis_sees_all_pages(sts, http):
    attached = names("<PolicyName>A</PolicyName><PolicyArn>arn:aws:iam::aws:policy/A</PolicyArn>")
    found = view(
        sts,
        http,
        SETTINGS,
        listed("ListRolePolicies", "PolicyNames", names("one"), "next"),
        listed("ListRolePolicies", "PolicyNames", names("two")),
        policy('{"a": 1}'),
        policy("not JSON"),
        listed("ListAttachedRolePolicies", "AttachedPolicies", attached),
        decided(
            decision("s3:ListBucket", "allowed"),
            decision(
                "ec2:DescribeVpcs",
                "implicitDeny",
                "<OrganizationsDecisionDetail><AllowedByOrganizations>false"
                "</AllowedByOrganizations>"
                f"</OrganizationsDecisionDetail><MissingContextValues>{names('aws:SourceIp')}"
                "</MissingContextValues>",
            ),
        ),
        decided(
            decision(
                "s3:GetObject",
                "explicitDeny",
                "<PermissionsBoundaryDecisionDetail><AllowedByPermissionsBoundary>false"
                "</AllowedByPermissionsBoundary>"
                "</PermissionsBoundaryDecisionDetail>",
            )
        ),
        rights=RIGHTS,
    )
    assert (found.settings.trust_policy, found.settings.max_seconds, found.settings.boundary) == (
        TRUST,
        3600,
        None,
    )
    assert found.policies == RolePolicies(
        {"one": {"a": 1}, "two": None}, ("arn:aws:iam::aws:policy/A",)
    )
    assert found.decisions == {
        RIGHTS[0]: Decision(True, False, False, False, frozenset()),
        RIGHTS[2]: Decision(False, False, True, False, frozenset({"aws:sourceip"})),
        RIGHTS[1]: Decision(False, True, False, True, frozenset()),
    }
    assert [
        form.get("Marker") for form, _ in http.requests if form["Action"] == "ListRolePolicies"
    ] == [None, "next"]
    simulated = [form for form, _ in http.requests if form["Action"] == "SimulatePrincipalPolicy"]
    assert [form["ResourceArns.member.1"] for form in simulated] == ["*", "arn:aws:s3:::x/*"]
    assert simulated[0]["ActionNames.member.2"] == "ec2:DescribeVpcs"
    assert {form["PolicySourceArn"] for form in simulated} == {ARN}
    assert simulated[0]["ContextEntries.member.1.ContextKeyName"] == "aws:PrincipalAccount"
    assert simulated[0]["ContextEntries.member.1.ContextKeyValues.member.1"] == ACCOUNT
    assert json.loads(http.requests[0][0]["Policy"])["Statement"] == [
        {"Effect": "Allow", "Action": [*READS, "iam:SimulatePrincipalPolicy"], "Resource": ARN}
    ]


def test_a_diagnosis_does_not_read_another_role_under_the_arn(sts, http):
    http.answers = [(200, assumed(AssumedRoleId="AROASOMEBODYELSE:deputy-session"))]
    assert sts.view(GRANT, "AROAEXAMPLE", RIGHTS) is None
    assert actions(http) == ["AssumeRole"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((403, error("AccessDenied")), Refused),
        ((400, error("InvalidInput")), Unavailable),
        ((200, "<a/>"), Unavailable),
    ],
)
def test_each_part_of_a_diagnosis_fails_alone(sts, http, answer, kind):
    found = view(
        sts, http, answer, *NONE, decided(decision("s3:ListBucket", "allowed")), rights=RIGHTS[:1]
    )
    assert isinstance(found.settings, kind)
    assert found.policies == RolePolicies({}, ())
    found = view(sts, http, SETTINGS, *NONE, answer, rights=RIGHTS[:1])
    assert found.settings.trust_policy == TRUST
    assert isinstance(found.decisions, kind)


def test_an_answer_without_its_parts_is_none(sts, http):
    attached = listed(
        "ListAttachedRolePolicies", "AttachedPolicies", names("<PolicyName>A</PolicyName>")
    )
    found = view(
        sts,
        http,
        SETTINGS,
        NONE[0],
        attached,
        decided("<EvalActionName>a:B</EvalActionName>"),
        rights=RIGHTS[:1],
    )
    assert [type(part) for part in (found.policies, found.decisions)] == [Unavailable] * 2


def test_a_diagnosis_makes_a_bounded_number_of_calls(sts, http):
    """A role may have many policies; and whatever answers instead of IAM may always have one
    more page.
    """
    found = view(
        sts, http, SETTINGS, listed("ListRolePolicies", "PolicyNames", names("one"), "next")
    )
    assert isinstance(found.policies, Unavailable)
    assert isinstance(found.decisions, Mapping)  # it had nothing to ask
    assert len(http.requests) == 1 + 40


def test_decisions_beyond_the_number_of_calls_are_not_known(sts, http):
    rights = [("s3:GetObject", f"arn:aws:s3:::{number}/*") for number in range(50)]
    found = view(
        sts, http, SETTINGS, *NONE, decided(decision("s3:GetObject", "allowed")), rights=rights
    )
    assert [*found.decisions] == rights[:37]


def test_missing_keys_of_a_resource_count(sts, http):
    part = f"<MissingContextValues>{names('aws:SourceVpc')}</MissingContextValues>"
    result = f"<ResourceSpecificResults><member>{part}</member></ResourceSpecificResults>"
    answer = decided(decision("s3:ListBucket", "implicitDeny", result))
    found = view(sts, http, SETTINGS, *NONE, answer, rights=RIGHTS[:1])
    assert found.decisions[RIGHTS[0]].untold == {"aws:sourcevpc"}
