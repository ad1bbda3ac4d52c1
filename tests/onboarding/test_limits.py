"""What a customer may limit at any time: until when, which sessions, and by which boundary. The
role stays the same.
"""

import copy
import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from subprocess import CompletedProcess

import boto3
import pytest
from botocore.exceptions import ClientError
from flask import Flask

from tests.attacks.evidence import on_sqlite
from tests.conftest import publish_templates
from tests.onboarding.test_organization import organisation_of
from tests.support.cast import Customer, World, root_client
from tests.support.shells import run_as

pytestmark = on_sqlite  # nothing here depends on the database

BOUNDARY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
ALLOWED, DENIED = "allowed", "AccessDenied"
LIMITS = ("AccessUntil", "RevokeSessionsBefore", "PermissionsBoundaryArn")


def stamp(**later: int) -> str:
    return (datetime.now(UTC) + timedelta(**later)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Access:
    """A customer's role as the vendor meets it: by sessions, which may do what the permission
    set allows.
    """

    def __init__(self, world: World, customer: Customer) -> None:
        self.world, self.customer, self.aws = world, customer, world.aws
        self.tenant = world.tenant()
        self.kit = world.kit(self.tenant)

    def launch(self, **limits: str) -> None:
        self.role_arn = self.customer.launch(self.kit["launch_stack_url"], **limits)

    def update(self, **limits: str) -> None:
        """Of the stack: what is not given stays as it is."""
        given = [{"ParameterKey": name, "ParameterValue": value} for name, value in limits.items()]
        with closing(
            root_client(self.aws, "cloudformation", self.customer.account)
        ) as cloudformation:
            [stack] = cloudformation.describe_stacks(StackName=self.kit["stack_name"])["Stacks"]
            kept = {it["ParameterKey"] for it in stack["Parameters"]} - limits.keys()
            given += [{"ParameterKey": name, "UsePreviousValue": True} for name in sorted(kept)]
            cloudformation.update_stack(
                StackName=self.kit["stack_name"],
                UsePreviousTemplate=True,
                Parameters=given,
                Capabilities=["CAPABILITY_NAMED_IAM"],
            )

    def role(self) -> dict:
        with closing(root_client(self.aws, "iam", self.customer.account)) as iam:
            return iam.get_role(RoleName=self.kit["role_name"])["Role"]

    def policies(self) -> list[str]:
        with closing(root_client(self.aws, "iam", self.customer.account)) as iam:
            return iam.list_role_policies(RoleName=self.kit["role_name"])["PolicyNames"]

    def assume(self) -> dict[str, str]:
        broker = self.aws.open_session(self.aws.broker_arn, "tests")
        keys = {
            "aws_access_key_id": broker.access_key_id,
            "aws_secret_access_key": broker.secret_access_key,
            "aws_session_token": broker.token,
        }
        with closing(self._client("sts", keys)) as sts:
            made = sts.assume_role(
                RoleArn=self.role_arn, RoleSessionName="tests", ExternalId=self.kit["external_id"]
            )["Credentials"]
        return {
            "aws_access_key_id": made["AccessKeyId"],
            "aws_secret_access_key": made["SecretAccessKey"],
            "aws_session_token": made["SessionToken"],
        }

    def _client(self, service: str, keys: dict[str, str]):
        return boto3.client(service, region_name="us-east-1", endpoint_url=self.aws.url, **keys)

    def new_session(self) -> str:
        return outcome(self.assume)

    def work(self, session: dict[str, str]) -> tuple[str, str]:
        """Whether the session may list buckets, and describe instances."""
        with (
            closing(self._client("s3", session)) as s3,
            closing(self._client("ec2", session)) as ec2,
        ):
            return outcome(s3.list_buckets), outcome(ec2.describe_instances)


def outcome(call) -> str:
    try:
        call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return DENIED if code == "UnauthorizedOperation" else code
    return ALLOWED


@pytest.fixture
def access(app: Flask, world: World, customer: Customer) -> Access:
    publish_templates(app)
    return Access(world, customer)


def test_the_stacks_limits_end_narrow_and_come_off_and_the_role_stays_the_same(access: Access):
    access.launch(PermissionsBoundaryArn=BOUNDARY)
    made, session = access.role(), access.assume()
    assert made["PermissionsBoundary"]["PermissionsBoundaryArn"] == BOUNDARY
    assert access.work(session) == (ALLOWED, DENIED)
    access.update(PermissionsBoundaryArn="", AccessUntil=stamp(minutes=30))
    assert (access.new_session(), access.work(session)) == (ALLOWED, (ALLOWED, ALLOWED))
    with access.aws.later(minutes=31):
        assert (access.new_session(), access.work(session)) == (DENIED, (DENIED, DENIED)), (
            "live ones end too"
        )
        access.update(AccessUntil=stamp(hours=10))
        assert (access.new_session(), access.work(session)) == (ALLOWED, (ALLOWED, ALLOWED))
        access.update(AccessUntil="", RevokeSessionsBefore=stamp(minutes=10))
        assert access.work(session) == (DENIED, DENIED)
        assert access.work(access.assume()) == (ALLOWED, ALLOWED)
    after = access.role()
    assert (after["RoleId"], after["AssumeRolePolicyDocument"]) == (
        made["RoleId"],
        made["AssumeRolePolicyDocument"],
    )
    assert access.policies() == ["permissions", "read-itself", "AWSRevokeOlderSessions"]


# --- a whole organisation ---


def test_an_organisations_accounts_get_the_limits_and_each_its_own_boundary(app, aws):
    publish_templates(app)
    with organisation_of(app, aws) as made:
        other = Customer(aws).account
        made.has(other)
        for account in (made.account, other):
            with closing(root_client(aws, "iam", account)) as iam:
                document = {
                    "Version": "2012-10-17",
                    "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
                }
                iam.create_policy(
                    PolicyName="Boundary", Path="/team/", PolicyDocument=json.dumps(document)
                )
        kit = made.world.kit(made.tenant)
        made.launch(
            AccessUntil="2099-12-31T00:00:00Z",
            RevokeSessionsBefore="2020-01-01T00:00:00Z",
            PermissionsBoundaryArn=f"arn:aws:iam::{made.account}:policy/team/Boundary",
        )
        for account in (made.account, other):
            with closing(root_client(aws, "iam", account)) as iam:
                role = iam.get_role(RoleName=kit["role_name"])["Role"]
                names = iam.list_role_policies(RoleName=kit["role_name"])["PolicyNames"]
                denials = [
                    iam.get_role_policy(RoleName=kit["role_name"], PolicyName=name)[
                        "PolicyDocument"
                    ]["Statement"]
                    for name in ("access-until", "AWSRevokeOlderSessions")
                ]
            [statement] = role["AssumeRolePolicyDocument"]["Statement"]
            assert statement["Condition"]["DateLessThan"] == {
                "aws:CurrentTime": "2099-12-31T00:00:00Z"
            }
            assert role["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith(
                f"{account}:policy/team/Boundary"
            )
            assert set(names) == {
                "permissions",
                "read-itself",
                "access-until",
                "AWSRevokeOlderSessions",
            }
            assert denials == [
                [{"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}]
                for condition in (
                    {"DateGreaterThanEquals": {"aws:CurrentTime": "2099-12-31T00:00:00Z"}},
                    {"DateLessThan": {"aws:TokenIssueTime": "2020-01-01T00:00:00Z"}},
                )
            ]


# --- the commands of the kit ---


@pytest.fixture
def shell(access: Access) -> Callable[..., CompletedProcess[str]]:
    """Runs a script in the customer's account."""
    return partial(run_as, access.aws, access.customer.account)


def test_the_kits_update_keeps_the_limits_of_the_stack(access: Access, shell):
    access.launch(AccessUntil="2099-12-31T00:00:00Z", PermissionsBoundaryArn=BOUNDARY)
    access.world.admin(
        "POST",
        f"/v1/tenants/{access.tenant['id']}/external-id/rotation",
        {"reason": "x"},
        expect=201,
    )
    done = shell(access.world.kit(access.tenant)["update"]["stack"]["aws_cli"])
    assert done.returncode == 0, done.stderr
    [statement] = access.role()["AssumeRolePolicyDocument"]["Statement"]
    # The update took place
    assert len(statement["Condition"]["StringEquals"]["sts:ExternalId"]) == 2
    assert statement["Condition"]["DateLessThan"] == {"aws:CurrentTime": "2099-12-31T00:00:00Z"}
    assert "access-until" in access.policies()
    assert access.role()["PermissionsBoundary"]["PermissionsBoundaryArn"] == BOUNDARY


def test_the_kits_update_brings_a_stack_of_an_earlier_template_to_this_one(access: Access, shell):
    """CloudFormation refuses the previous value of a parameter which the stack's own template
    does not have.
    """
    trust = copy.deepcopy(access.kit["trust_policy"])
    trust["Statement"][0]["Action"] = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    with closing(
        root_client(access.aws, "cloudformation", access.customer.account)
    ) as cloudformation:
        role = {
            "Type": "AWS::IAM::Role",
            "Properties": {"RoleName": {"Ref": "RoleName"}, "AssumeRolePolicyDocument": trust},
        }
        cloudformation.create_stack(
            StackName=access.kit["stack_name"],
            TemplateBody=json.dumps(
                {"Parameters": {"RoleName": {"Type": "String"}}, "Resources": {"Role": role}}
            ),
            Parameters=[{"ParameterKey": "RoleName", "ParameterValue": access.kit["role_name"]}],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
    made = access.role()
    done = shell(access.kit["update"]["stack"]["aws_cli"])
    assert done.returncode == 0, done.stderr
    assert (access.role()["RoleId"], access.policies()) == (
        made["RoleId"],
        ["permissions", "read-itself"],
    )
    assert access.role()["AssumeRolePolicyDocument"] == access.kit["trust_policy"]


def test_the_script_limits_a_role_and_keeps_its_limits_until_they_are_taken_away(
    access: Access, shell
):
    def run(**limits: str) -> None:
        done = shell(access.kit["aws_cli"], **limits)
        assert done.returncode == 0, done.stderr
        access.role_arn = done.stdout.strip()

    run()
    made, session = access.role(), access.assume()
    assert access.work(session) == (ALLOWED, ALLOWED)
    with access.aws.later(minutes=20):
        run(
            RevokeSessionsBefore=stamp(minutes=10),
            PermissionsBoundaryArn=BOUNDARY,
            AccessUntil=stamp(minutes=30),
        )
        assert access.work(session) == (DENIED, DENIED)
        session, limited = access.assume(), access.role()
        assert access.work(session) == (ALLOWED, DENIED)
        run()
        assert access.role() == limited
        assert set(access.policies()) == {
            "permissions",
            "read-itself",
            "access-until",
            "AWSRevokeOlderSessions",
        }
    with access.aws.later(minutes=51):
        assert (access.new_session(), access.work(session)) == (DENIED, (DENIED, DENIED))
        run(AccessUntil="", PermissionsBoundaryArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        assert access.work(access.assume()) == (ALLOWED, ALLOWED)
    after = access.role()
    assert (after["RoleId"], after["AssumeRolePolicyDocument"]) == (
        made["RoleId"],
        access.kit["trust_policy"],
    )
    assert "access-until" not in access.policies()


def test_the_script_makes_nothing_of_what_is_no_limit(access: Access, shell):
    for name, value in (
        ("AccessUntil", "tomorrow"),
        ("RevokeSessionsBefore", '"'),
        (LIMITS[2], "x y"),
    ):
        done = shell(access.kit["aws_cli"], **{name: value})
        assert (done.returncode, done.stdout) == (1, "")
        assert f"Set {name}: " in done.stderr
    with closing(root_client(access.aws, "iam", access.customer.account)) as iam:
        assert iam.list_roles()["Roles"] == []
