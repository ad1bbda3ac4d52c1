"""The kit's script, run in a customer's account by real shells with the real AWS CLI."""

from itertools import cycle

import pytest

from app.permissions import permission_sets
from tests.cloudformation.test_terraform import read_itself
from tests.onboarding.conftest import set_of
from tests.support.cast import path_of, without_external_id


@pytest.mark.parametrize(
    "case", list(zip(permission_sets.load(), cycle(["sh", "bash"]), strict=False)), ids="-".join
)
def test_the_aws_cli_kit_makes_a_role_that_is_verified(world, customer, shell, iam, case):
    (permission_set, program), tenant = case, world.tenant()
    kit = world.admin(
        "GET", f"/v1/tenants/{tenant['id']}/onboarding?permission_set={permission_set}"
    )
    done = shell(kit["aws_cli"], program)
    assert done.returncode == 0, done.stderr
    role_arn = f"arn:aws:iam::{customer.account}:role/{kit['role_name']}"
    assert done.stdout == f"{role_arn}\n"
    assert "give the ARN to Example Vendor" in done.stderr
    world.connect(tenant, role_arn)
    role = iam.get_role(RoleName=kit["role_name"])["Role"]
    policies = {}
    for name in iam.list_role_policies(RoleName=kit["role_name"])["PolicyNames"]:
        shown = iam.get_role_policy(RoleName=kit["role_name"], PolicyName=name)
        policies[name] = shown["PolicyDocument"]
    assert role["AssumeRolePolicyDocument"] == kit["trust_policy"]
    assert role["MaxSessionDuration"] == 3600
    assert kit["external_id"] in role["Description"]
    assert {tag["Key"]: tag["Value"] for tag in role["Tags"]} == {
        "deputy:vendor": "Example Vendor",
        "deputy:external-id": kit["external_id"],
        "deputy:permission-set": f"{permission_set}@1",
    }
    policy = set_of(world, permission_set)["policy"]
    assert policies == {"permissions": policy, "read-itself": read_itself(role_arn)}


@pytest.mark.parametrize("option", ["", "--no-such-option"])
def test_the_aws_cli_kit_brings_its_own_role_up_to_date(world, customer, shell, iam, option):
    """Also if making one is refused for another reason than that it is there."""
    tenant = world.tenant()
    kit = world.kit(tenant)
    vendors = [{"Key": "deputy:vendor", "Value": "Example Vendor"}]
    loose = without_external_id(kit["trust_policy"])
    role_arn = customer.role(kit["role_name"], loose, Tags=vendors, MaxSessionDuration=7200)
    made = world.connect(tenant, role_arn, status="insecure")
    done = shell(kit["aws_cli"].replace("create-role", f"create-role {option}", 1))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{role_arn}\n", done.stderr
    assert "there already" in done.stderr
    assert world.admin("POST", path_of(made, "/verify"))["status"] == "verified"
    role = iam.get_role(RoleName=kit["role_name"])["Role"]
    assert role["MaxSessionDuration"] == 3600
    assert {"Key": "deputy:external-id", "Value": kit["external_id"]} in role["Tags"]


def test_the_aws_cli_kit_leaves_a_role_alone_that_is_not_the_vendors(world, customer, shell, iam):
    kit = world.kit(world.tenant())
    theirs = {"Version": "2012-10-17", "Statement": []}
    customer.role(
        kit["role_name"], theirs, Tags=[{"Key": "deputy:vendor", "Value": "Somebody Else"}]
    )
    done = shell(kit["aws_cli"])
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"has a role {kit['role_name']} already" in done.stderr
    assert "Nothing was changed" in done.stderr
    assert iam.get_role(RoleName=kit["role_name"])["Role"]["AssumeRolePolicyDocument"] == theirs
    assert iam.list_role_policies(RoleName=kit["role_name"])["PolicyNames"] == []


def test_the_aws_cli_kit_passes_on_any_other_refusal(world, shell, iam):
    """Here the AWS CLI's own, of a duration that no role has; and nothing is made."""
    kit = world.kit(world.tenant())
    done = shell(kit["aws_cli"].replace("max_session_seconds=3600", "max_session_seconds=36"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "MaxSessionDuration" in done.stderr
    assert iam.list_roles()["Roles"] == []
