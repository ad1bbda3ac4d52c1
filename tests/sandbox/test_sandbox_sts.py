"""AssumeRole beyond the trust policy: callers, limits, sessions, and what is recorded."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from sandbox.policy import Caller
from sandbox.sts import StsCall
from tests.sandbox.sandbox_people import (
    CUSTOMER,
    DENIED,
    DENY_ALL,
    OWN,
    VENDOR,
    VENDOR_ROOT,
    document,
    outcome,
    statement,
)

INVALID = (400, "ValidationError")
ASSUME_ANY = statement(Resource="*")


def text_of(call):
    with pytest.raises(ClientError) as raised:
        call()
    return raised.value.response["Error"]["Message"]


@pytest.fixture
def task(people):
    """A session of a role in the vendor's account: what a service on ECS has."""
    role = people.role({"AWS": VENDOR}, account=VENDOR, policies=[ASSUME_ANY], MaxSessionDuration=43200)
    return people.assume(role)


class TestIdentityPolicies:
    @pytest.mark.parametrize(
        "policy",
        [
            None,
            statement("s3:*", Resource="*"),
            statement(Resource="arn:aws:iam::*:role/other-*"),
            statement(Resource="*", effect="Deny"),
            statement(Resource="*", Condition={"StringEquals": {"aws:ResourceAccount": VENDOR}}),
        ],
    )
    def test_the_caller_must_be_allowed_too(self, people, policy):
        assert people.outcome(people.role(VENDOR_ROOT), who=people.user(VENDOR, policy)) == DENIED

    def test_policies_come_from_groups_and_managed_policies(self, people):
        iam, role = people.client("iam", VENDOR), people.role(VENDOR_ROOT)
        grouped, attached = people.user(VENDOR), people.user(VENDOR)
        iam.create_group(GroupName="assumers")
        iam.put_group_policy(GroupName="assumers", PolicyName="p", PolicyDocument=document(ASSUME_ANY))
        iam.add_user_to_group(GroupName="assumers", UserName=grouped["name"])
        arn = iam.create_policy(PolicyName="assume-any", PolicyDocument=document(ASSUME_ANY))["Policy"]["Arn"]
        iam.attach_user_policy(UserName=attached["name"], PolicyArn=arn)
        assert people.outcome(role, who=grouped) == people.outcome(role, who=attached) == "allowed"
        iam.create_policy_version(
            PolicyArn=arn, PolicyDocument=document(statement("s3:*", Resource="*")), SetAsDefault=True
        )
        assert people.outcome(role, who=attached) == DENIED

    def test_a_root_needs_no_identity_policy(self, people):
        assert people.outcome(people.role(VENDOR_ROOT), who=VENDOR) == "allowed"
        assert people.outcome(people.role({"AWS": CUSTOMER}), who=VENDOR) == DENIED

    def test_in_one_account_being_named_is_enough(self, people):
        user = people.user(VENDOR)
        named = people.role({"AWS": user["arn"]}, account=VENDOR)
        delegated = people.role({"AWS": VENDOR}, account=VENDOR)
        assert people.outcome(named, who=user) == "allowed"
        assert people.outcome(delegated, who=user) == DENIED

    def test_an_explicit_deny_outweighs_being_named(self, people):
        user = people.user(VENDOR, statement(effect="Deny", Resource="*"))
        assert people.outcome(people.role({"AWS": user["arn"]}, account=VENDOR), who=user) == DENIED

    def test_a_permissions_boundary_limits_a_session(self, people):
        iam = people.client("iam", VENDOR)
        narrow = document(statement("s3:*", Resource="*"))
        arn = iam.create_policy(PolicyName="boundary", PolicyDocument=narrow)["Policy"]["Arn"]
        role = people.role({"AWS": VENDOR}, account=VENDOR, policies=[ASSUME_ANY], PermissionsBoundary=arn)
        assert people.outcome(people.role(VENDOR_ROOT), who=people.assume(role)) == DENIED


class TestRoles:
    def test_an_absent_role_answers_like_a_refusing_one(self, people):
        closed, absent = people.role({"AWS": CUSTOMER}), f"arn:aws:iam::{CUSTOMER}:role/deputy-absent"
        for role in (closed, absent):
            assert people.outcome(role) == DENIED
            user = people.broker["arn"]
            wanted = f"User: {user} is not authorized to perform: sts:AssumeRole on resource: {role}"
            assert text_of(lambda role=role: people.assume(role)).endswith(wanted)

    def test_case_and_path_count(self, people):
        role = people.role(VENDOR_ROOT, name="deputy-Cased", Path="/vendor/acme/")
        assert people.outcome(role) == "allowed"
        assert people.outcome(role.replace("Cased", "cased")) == DENIED
        assert people.outcome(role.replace("/vendor/acme/", "/")) == DENIED
        assert people.outcome(role.replace("acme", "Acme")) == DENIED

    def test_a_session_drops_the_path_and_carries_the_roles_own_id(self, people):
        role = people.role(VENDOR_ROOT, name="deputy-pathed", Path="/a/b/")
        sts = people.client("sts", {k: v for k, v in people.broker.items() if k.startswith("aws_")})
        user = sts.assume_role(RoleArn=role, RoleSessionName="sess")["AssumedRoleUser"]
        role_id = people.client("iam", CUSTOMER).get_role(RoleName="deputy-pathed")["Role"]["RoleId"]
        assert user == {
            "AssumedRoleId": f"{role_id}:sess",
            "Arn": f"arn:aws:sts::{CUSTOMER}:assumed-role/deputy-pathed/sess",
        }
        who = people.client("sts", people.assume(role)).get_caller_identity()
        assert (who["UserId"], who["Account"], who["Arn"]) == (user["AssumedRoleId"], CUSTOMER, user["Arn"])

    def test_a_recreated_role_has_another_id(self, people):
        iam, ids = people.client("iam", CUSTOMER), set()
        for _ in range(2):
            role = people.role(VENDOR_ROOT, name="deputy-again")
            ids.add(people.client("sts", people.assume(role)).get_caller_identity()["UserId"])
            iam.delete_role(RoleName="deputy-again")
            assert people.outcome(role) == DENIED
        assert len(ids) == 2

    def test_sessions_are_named_by_role_arn_with_path(self, people):
        broker = people.role({"AWS": VENDOR}, account=VENDOR, policies=[ASSUME_ANY], Path="/svc/")
        condition = {"ArnEquals": {"aws:PrincipalArn": broker}}
        assert people.outcome(people.role(VENDOR_ROOT, condition), who=people.assume(broker)) == "allowed"
        assert people.outcome(people.role({"AWS": broker}), who=people.assume(broker)) == "allowed"


class TestLimits:
    def test_durations(self, people):
        role, long = people.role(VENDOR_ROOT), people.role(VENDOR_ROOT, MaxSessionDuration=43200)
        assert people.outcome(long, DurationSeconds=43200) == people.outcome(role, DurationSeconds=900) == "allowed"
        assert text_of(lambda: people.assume(role, DurationSeconds=3601)).endswith(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )

    def test_chaining_lasts_an_hour(self, people, task):
        role = people.role(VENDOR_ROOT, MaxSessionDuration=43200)
        assert people.outcome(role, who=task, DurationSeconds=3600) == "allowed"
        assert people.outcome(role, who=task, DurationSeconds=3601) == INVALID
        assert text_of(lambda: people.assume(role, who=task, DurationSeconds=3601)).endswith(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
        )

    def test_strangers_do_not_learn_limits(self, people):
        assert people.outcome(people.role({"AWS": CUSTOMER}), DurationSeconds=43200) == DENIED

    @pytest.mark.parametrize(
        "options",
        [
            {"DurationSeconds": 43201},
            {"ExternalId": "bad id !"},
            {"ExternalId": "x" * 1225},
            {"ExternalId": "ünï"},
            {"ExternalId": "line\n"},
            {"RoleSessionName": "a b"},
            {"RoleSessionName": "x" * 65},
            {"RoleArn": "deputy-deputy-deputy-deputy"},
            {"RoleArn": f"arn:aws:acm:us-east-1:{CUSTOMER}:certificate/x"},
            {"RoleArn": f"arn:aws-us-gov:iam::{CUSTOMER}:role/deputy"},
            {"Policy": "x" * 2049},
        ],
    )
    def test_aws_checks_what_boto3_does_not(self, people, options):
        arn = options.get("RoleArn") or people.role(VENDOR_ROOT)
        rest = {key: value for key, value in options.items() if key != "RoleArn"}
        assert people.outcome(arn, **rest) == INVALID
        assert people.sandbox.sts_calls[-1].outcome == "ValidationError"

    def test_the_texts_are_aws_s(self, people):
        role = people.role(VENDOR_ROOT)
        assert r"Value 'a b' at 'externalId' failed to satisfy constraint: Member must satisfy regular" in text_of(
            lambda: people.assume(role, "a b")
        )
        certificate = f"arn:aws:acm:us-east-1:{CUSTOMER}:certificate/x"
        assert text_of(lambda: people.assume(certificate)).endswith("Request ARN is invalid")

    def test_a_users_arn_is_denied_and_not_invalid(self, people):
        assert people.outcome(people.broker["arn"]) == DENIED

    @pytest.mark.parametrize("policy", ["not json", "{}", '{"Version":"2012-10-17","Statement":{"Effect":"Allow"}}'])
    def test_malformed_session_policies(self, people, policy):
        outcome = people.outcome(people.role(VENDOR_ROOT), Policy=policy)
        assert outcome == (400, "MalformedPolicyDocument")

    @pytest.mark.parametrize("options", [{"Tags": [{"Key": "a", "Value": "b"}]}, {"SourceIdentity": "me"}])
    def test_what_is_not_supported_says_so(self, people, options):
        assert people.outcome(people.role(VENDOR_ROOT), **options) == (501, "SandboxUnsupported")
        session_token = people.client("sts", VENDOR).get_session_token
        assert outcome(session_token) == (501, "SandboxUnsupported")


class TestSessionPolicies:
    def test_a_deny_all_session_is_inert_but_knows_who_it_is(self, people):
        everything = people.role(VENDOR_ROOT, policies=[statement("*", Resource="*")])
        inert = people.assume(everything, Policy=DENY_ALL, DurationSeconds=900)
        assert people.client("sts", inert).get_caller_identity()["Account"] == CUSTOMER
        assert people.outcome(people.role({"AWS": CUSTOMER}), who=inert) == DENIED
        for service, call in [
            ("s3", lambda c: c.list_buckets()),
            ("iam", lambda c: c.list_roles()),
            ("sqs", lambda c: c.list_queues()),
            ("sns", lambda c: c.list_topics()),
            ("ec2", lambda c: c.describe_instances()),
            ("cloudformation", lambda c: c.list_stacks()),
        ]:
            client = people.client(service, inert)
            status, code = outcome(lambda call=call, client=client: call(client))
            assert status == 403, service
            assert code.startswith("AccessDenied"), service

    def test_a_session_policy_only_narrows(self, people):
        role = people.role(VENDOR_ROOT, policies=[statement("s3:ListAllMyBuckets", Resource="*")])
        widened = people.assume(role, Policy=document(statement("*", Resource="*")))
        assert outcome(people.client("s3", widened).list_buckets) == "allowed"
        assert outcome(people.client("iam", widened).list_roles) == DENIED

    def test_of_iams_roles_a_session_sees_those_that_its_policies_name(self, people):
        other = people.role(VENDOR_ROOT).rpartition("/")[2]
        reads = statement(["iam:GetRole", "iam:ListRolePolicies"], Resource=f"arn:aws:iam::{CUSTOMER}:role/*/reader")
        role = people.role(VENDOR_ROOT, name="reader", Path="/a/", policies=[reads])
        reader = people.client("iam", people.assume(role))
        assert reader.get_role(RoleName="reader")["Role"]["Arn"] == role
        assert reader.list_role_policies(RoleName="reader")["PolicyNames"] == ["p0"]
        for call in (reader.get_role, reader.list_role_policies):
            assert outcome(lambda call=call: call(RoleName=other)) == DENIED
        assert outcome(lambda: reader.get_role_policy(RoleName="reader", PolicyName="p0")) == DENIED
        narrowed = people.assume(role, Policy=document(statement("iam:GetRole", Resource=f"{role}2")))
        assert outcome(lambda: people.client("iam", narrowed).get_role(RoleName="reader")) == DENIED


class TestKeys:
    def test_unknown_and_inactive_keys(self, people):
        role, user = people.role(VENDOR_ROOT), people.user(VENDOR, ASSUME_ANY)
        unknown = {"aws_access_key_id": "AKIAZZZZZZZZZZZZZZZZ", "aws_secret_access_key": "x"}
        assert people.outcome(role, who=unknown) == (403, "InvalidClientTokenId")
        people.client("iam", VENDOR).update_access_key(
            UserName=user["name"], AccessKeyId=user["aws_access_key_id"], Status="Inactive"
        )
        assert people.outcome(role, who=user) == (403, "InvalidClientTokenId")
        assert outcome(people.client("s3", unknown).list_buckets) == (403, "InvalidAccessKeyId")
        assert outcome(people.client("sqs", unknown).list_queues)[1] == "InvalidClientTokenId"

    def test_a_session_needs_its_token(self, people, task):
        for wrong in ({**task, "aws_session_token": "x"}, {k: v for k, v in task.items() if "token" not in k}):
            assert outcome(people.client("sts", wrong).get_caller_identity) == (403, "InvalidClientTokenId")

    def test_expired_sessions_are_refused_by_every_service(self, people, sandbox):
        role = people.role(VENDOR_ROOT, policies=[statement("*", Resource="*")])
        session = sandbox.open_session(role, "old", seconds=-1)
        old = {
            "aws_access_key_id": session.access_key_id,
            "aws_secret_access_key": session.secret_access_key,
            "aws_session_token": session.token,
        }
        assert outcome(people.client("sts", old).get_caller_identity) == (403, "ExpiredToken")
        assert outcome(people.client("s3", old).list_buckets) == (403, "ExpiredToken")
        assert outcome(people.client("sqs", old).list_queues) == (403, "ExpiredToken")

    def test_a_root_is_a_root(self, people):
        who = people.client("sts", CUSTOMER).get_caller_identity()
        assert (who["Account"], who["Arn"]) == (CUSTOMER, f"arn:aws:iam::{CUSTOMER}:root")

    def test_expirations_are_what_was_asked_for(self, people):
        sts = people.client("sts", VENDOR)
        answer = sts.assume_role(RoleArn=people.role(VENDOR_ROOT), RoleSessionName="sess", DurationSeconds=900)
        remaining = answer["Credentials"]["Expiration"] - datetime.now(UTC)
        assert timedelta(seconds=890) < remaining <= timedelta(seconds=900)


def test_every_attempt_is_recorded(people):
    role = people.role(VENDOR_ROOT, {"StringEquals": {"sts:ExternalId": OWN}})
    people.outcome(role, OWN, Policy=DENY_ALL, DurationSeconds=900)
    people.outcome(role)
    who = people.broker["arn"]
    assert people.sandbox.sts_calls == [
        StsCall(who, role, OWN, "sess", 900, DENY_ALL, "allowed"),
        StsCall(who, role, None, "sess", 3600, None, "AccessDenied"),
    ]


def test_secrets_stay_out_of_reprs(sandbox, people):
    session = sandbox.open_session(people.role(VENDOR_ROOT), "s")
    assert session.secret_access_key not in repr(session)
    assert session.token not in repr(session)
    assert isinstance(session.caller, Caller)


def test_assume_role_is_fast_enough_to_develop_against(people):
    """In CPU time, which a busy neighbour does not change much; a scan of all roles, say, costs more."""
    role, sts = people.role(VENDOR_ROOT), people.client("sts", VENDOR)
    start = time.process_time()
    for _ in range(50):
        sts.assume_role(RoleArn=role, RoleSessionName="sess")
    assert time.process_time() - start < 10  # some 0.3 s
