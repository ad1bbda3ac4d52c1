"""What a customer may limit at any time: until when, which sessions, and by which boundary. The
role stays the same.
"""

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.client.people import MAY_LIST
from tests.onboarding.test_organization import organisation_of
from tests.onboarding.test_set_versions import update_stack
from tests.support.cast import Customer, root_client

# Nothing here depends on the database
pytestmark = pytest.mark.usefixtures("published")

BOUNDARY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
ALLOWED, DENIED = "allowed", "AccessDenied"
ENDS, REVOKES = "access-until", "AWSRevokeOlderSessions"
POLICIES = {"permissions", "read-itself"}
CREDENTIALS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def stamp(**later):
    return (datetime.now(UTC) + timedelta(**later)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Access:
    """A customer's role as the vendor meets it: by sessions, which may do what the permission
    set allows.
    """

    def __init__(self, world, customer, iam):
        self.world, self.customer, self.aws = world, customer, world.aws
        self.iam, self.tenant = iam, world.tenant()
        self.kit = world.kit(self.tenant)
        self.name = self.kit["role_name"]
        self.role_arn = f"arn:aws:iam::{customer.account}:role/{self.name}"
        self.clients = {}

    def launch(self, **limits):
        self.customer.launch(self.kit["launch_stack_url"], **limits)

    def update(self, **limits):
        """Of the stack: what is not given stays as it is."""
        update_stack(self.world, self.customer, self.kit["stack_name"], **limits)

    def role(self):
        return self.iam.get_role(RoleName=self.name)["Role"]

    def policies(self):
        return {*self.iam.list_role_policies(RoleName=self.name)["PolicyNames"]}

    def trust(self):
        [statement] = self.role()["AssumeRolePolicyDocument"]["Statement"]
        return statement["Condition"]

    def assume(self):
        broker = self.aws.open_session(self.aws.broker_arn, "tests")
        keys = (broker.access_key_id, broker.secret_access_key, broker.token)
        made = self._client("sts", keys).assume_role(
            RoleArn=self.role_arn, RoleSessionName="tests", ExternalId=self.kit["external_id"]
        )["Credentials"]
        return made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]

    def _client(self, service, keys):
        """Kept, as each takes long to make."""
        if (service, keys) not in self.clients:
            self.clients[service, keys] = boto3.client(
                service,
                "us-east-1",
                endpoint_url=self.aws.url,
                **dict(zip(CREDENTIALS, keys, strict=True)),
            )
        return self.clients[service, keys]

    def new_session(self):
        return outcome(self.assume)

    def work(self, session):
        """Whether the session may list buckets, and describe instances."""
        s3, ec2 = (self._client(service, session) for service in ("s3", "ec2"))
        return outcome(s3.list_buckets), outcome(ec2.describe_instances)


def outcome(call):
    try:
        call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return DENIED if code == "UnauthorizedOperation" else code
    return ALLOWED


@pytest.fixture
def access(world, customer, iam) -> Iterator[Access]:
    role = Access(world, customer, iam)
    yield role
    for client in role.clients.values():
        client.close()


def test_the_stacks_limits_end_narrow_and_come_off_and_the_role_stays_the_same(access, shell):
    """Live sessions end too. The kit's update keeps the limits of the stack."""
    access.launch(PermissionsBoundaryArn=BOUNDARY)
    made, session = access.role(), access.assume()
    assert made["PermissionsBoundary"]["PermissionsBoundaryArn"] == BOUNDARY
    assert access.work(session) == (ALLOWED, DENIED)
    access.update(PermissionsBoundaryArn="", AccessUntil=stamp(minutes=30))
    assert access.new_session() == ALLOWED
    assert access.work(session) == (ALLOWED, ALLOWED)
    with access.aws.later(minutes=31):
        assert access.new_session() == DENIED
        assert access.work(session) == (DENIED, DENIED)
        access.update(AccessUntil=stamp(hours=10))
        assert access.new_session() == ALLOWED
        assert access.work(session) == (ALLOWED, ALLOWED)
        access.update(AccessUntil="", RevokeSessionsBefore=stamp(minutes=10))
        assert access.work(session) == (DENIED, DENIED)
        assert access.work(access.assume()) == (ALLOWED, ALLOWED)
    after = access.role()
    assert after["RoleId"] == made["RoleId"]
    assert after["AssumeRolePolicyDocument"] == made["AssumeRolePolicyDocument"]
    assert access.policies() == POLICIES | {REVOKES}
    until = "2099-12-31T00:00:00Z"
    access.update(AccessUntil=until, PermissionsBoundaryArn=BOUNDARY)
    path = f"/v1/tenants/{access.tenant['id']}/external-id/rotation"
    access.world.admin("POST", path, {"reason": "x"}, expect=201)
    kit = access.world.kit(access.tenant)
    done = shell(kit["update"]["stack"]["aws_cli"])
    assert done.returncode == 0, done.stderr
    [statement] = kit["trust_policy"]["Statement"]
    assert len(statement["Condition"]["StringEquals"]["sts:ExternalId"]) == 2
    limit = {"DateLessThan": {"aws:CurrentTime": until}}
    assert access.trust() == statement["Condition"] | limit
    assert access.policies() == POLICIES | {REVOKES, ENDS}
    assert access.role()["PermissionsBoundary"]["PermissionsBoundaryArn"] == BOUNDARY


# --- a whole organisation ---


def test_an_organisations_accounts_get_the_limits_and_each_its_own_boundary(app, aws):
    ends = "2099-12-31T00:00:00Z"
    with organisation_of(app, aws) as made:
        other = Customer(aws).account
        made.has(other)
        for account in (made.account, other):
            iam = root_client(aws, "iam", account)
            iam.create_policy(PolicyName="Boundary", Path="/team/", PolicyDocument=MAY_LIST)
        name = made.world.kit(made.tenant)["role_name"]
        made.launch(
            AccessUntil=ends,
            RevokeSessionsBefore="2020-01-01T00:00:00Z",
            PermissionsBoundaryArn=f"arn:aws:iam::{made.account}:policy/team/Boundary",
        )
        for account in (made.account, other):
            iam = root_client(aws, "iam", account)
            role = iam.get_role(RoleName=name)["Role"]
            policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
            [statement] = role["AssumeRolePolicyDocument"]["Statement"]
            assert statement["Condition"]["DateLessThan"] == {"aws:CurrentTime": ends}
            boundary = role["PermissionsBoundary"]["PermissionsBoundaryArn"]
            assert boundary.endswith(f"{account}:policy/team/Boundary")
            assert {*policies} == POLICIES | {ENDS, REVOKES}


# --- the commands of the kit ---


def test_the_kits_update_brings_a_stack_of_an_earlier_template_to_this_one(access, shell):
    """CloudFormation refuses the previous value of a parameter which the stack's own template
    does not have.
    """
    trust = copy.deepcopy(access.kit["trust_policy"])
    trust["Statement"][0]["Action"] = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    account = access.customer.account
    cloudformation = root_client(access.aws, "cloudformation", account)
    role = {
        "Type": "AWS::IAM::Role",
        "Properties": {"RoleName": {"Ref": "RoleName"}, "AssumeRolePolicyDocument": trust},
    }
    cloudformation.create_stack(
        StackName=access.kit["stack_name"],
        TemplateBody=json.dumps(
            {"Parameters": {"RoleName": {"Type": "String"}}, "Resources": {"Role": role}}
        ),
        Parameters=[{"ParameterKey": "RoleName", "ParameterValue": access.name}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    made = access.role()
    done = shell(access.kit["update"]["stack"]["aws_cli"])
    assert done.returncode == 0, done.stderr
    assert access.role()["RoleId"] == made["RoleId"]
    assert access.policies() == POLICIES
    assert access.role()["AssumeRolePolicyDocument"] == access.kit["trust_policy"]


def test_the_script_limits_a_role_and_keeps_its_limits_until_they_are_removed(access, shell):
    def run(**limits):
        done = shell(access.kit["aws_cli"], **limits)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == access.role_arn, done.stderr
        return access.role()

    made, session = run(), access.assume()
    with access.aws.later(minutes=20):
        until = stamp(minutes=30)
        limits = {"RevokeSessionsBefore": stamp(minutes=10), "PermissionsBoundaryArn": BOUNDARY}
        limited = run(AccessUntil=until, **limits)
        assert access.trust()["DateLessThan"] == {"aws:CurrentTime": until}
        assert access.work(session) == (DENIED, DENIED)
        session = access.assume()
        assert access.work(session) == (ALLOWED, DENIED)
        assert run() == limited
        assert access.policies() == POLICIES | {ENDS, REVOKES}
    with access.aws.later(minutes=51):
        assert access.new_session() == DENIED
        assert access.work(session) == (DENIED, DENIED)
        after = run(AccessUntil="", PermissionsBoundaryArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        assert access.work(access.assume()) == (ALLOWED, ALLOWED)
    assert after["RoleId"] == made["RoleId"]
    assert after["AssumeRolePolicyDocument"] == access.kit["trust_policy"]
    assert access.policies() == POLICIES | {REVOKES}
