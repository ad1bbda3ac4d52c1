"""A role that no stack made, from version to version: by the script and the configuration that
the page shows then.
"""

import re
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from tests.onboarding.conftest import set_of
from tests.onboarding.test_kit_scripts import made_by
from tests.onboarding.test_set_versions import ask_for, kit_of, verify
from tests.support.cast import path_of
from tests.support.versions import MORE, READS, WRITES, page_of

AUDIT, VIEW, BUCKETS = (
    {"name": name, "why": "Reads settings."}
    for name in ("SecurityAudit", "job-function/ViewOnlyAccess", "AmazonS3ReadOnlyAccess")
)
OWN = "IAMReadOnlyAccess"  # which no set of the tests asks for
DENY = """{"Version": "2012-10-17", "Statement":
    {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}}"""


@pytest.fixture
def result_of(shell) -> Callable[[str], CompletedProcess[str]]:
    """Runs a script in the customer's account, which must not fail."""

    def run(script):
        done = shell(script)
        assert done.returncode == 0, done.stderr
        return done

    return run


class Role:
    """What AWS says of the customer's role."""

    def __init__(self, iam, name):
        self._iam, self.name = iam, name

    def attached(self):
        found = self._iam.list_attached_role_policies(RoleName=self.name)["AttachedPolicies"]
        return {policy["PolicyArn"].removeprefix("arn:aws:iam::aws:policy/") for policy in found}

    def policy(self):
        return self._iam.get_role_policy(RoleName=self.name, PolicyName="permissions")[
            "PolicyDocument"
        ]

    def unique_id(self):
        return self._iam.get_role(RoleName=self.name)["Role"]["RoleId"]


def test_the_script_attaches_and_detaches_what_the_vendor_ever_asked_for_and_nothing_else(
    seller, customer, iam, result_of
):
    """By the script of a new role and by that of an update, which both work on a role that is
    there. VIEW was of another set of the vendor's, whose file is gone.
    """
    seller.write(seller.reads, 1, READS, managed_policies=[AUDIT])
    seller.write(seller.writes, 1, READS, WRITES, access="write", managed_policies=[VIEW])
    with seller.release() as (world, _):
        tenant = world.tenant()
        kit = kit_of(world, tenant, seller.reads)
        role = Role(iam, kit["role_name"])
        made = world.connect(tenant, result_of(kit["aws_cli"]).stdout.strip())
        assert role.attached() == {AUDIT["name"]}
        unique_id = role.unique_id()
        rights = world.admin("POST", path_of(made, "/diagnose"))["permissions"]
        assert rights["version"] == 1
        assert rights["missing"] == []
        assert rights["beyond"] == []
    policy = iam.create_policy(PolicyName="guard", PolicyDocument=DENY)["Policy"]
    guard = policy["Arn"]
    for arn in (guard, *(f"arn:aws:iam::aws:policy/{name}" for name in (OWN, VIEW["name"]))):
        iam.attach_role_policy(RoleName=role.name, PolicyArn=arn)
    iam.put_role_policy(RoleName=role.name, PolicyName="guard", PolicyDocument=DENY)
    seller.withdraw(seller.writes)
    for version, managed, gone in ((2, [BUCKETS], [AUDIT, VIEW]), (3, [], [BUCKETS])):
        seller.write(seller.reads, version, READS, managed_policies=managed)
        with seller.release() as (world, _):
            kit = kit_of(world, tenant, seller.reads)
            done = result_of((kit["update"] if managed else kit)["aws_cli"])
            assert role.attached() == {guard, OWN, *(each["name"] for each in managed)}
            detached = re.findall("Detached arn:aws:iam::aws:policy/(.*),", done.stderr)
            assert sorted(detached) == sorted(each["name"] for each in gone)
            proven = verify(world, made)
            assert proven["permission_set_version"] == version
    assert role.unique_id() == unique_id
    assert "guard" in iam.list_role_policies(RoleName=role.name)["PolicyNames"]


def tagged_role(seller, customer, world, tenant):
    """Connect a role as the script makes one of version 1."""
    kit = kit_of(world, tenant, seller.reads)
    values = {"deputy:permission-set": f"{seller.reads}@1", "deputy:vendor": "Example Vendor"}
    tags = [{"Key": key, "Value": value} for key, value in values.items()]
    return world.connect(
        tenant, customer.reading_itself(kit["role_name"], kit["trust_policy"], Tags=tags)
    )


def test_the_pages_script_and_terraform_update_the_role_that_is_there_and_move_it(
    seller, customer, iam, result_of
):
    """It keeps its name, which is not that of the other set."""
    with seller.release() as (world, _):
        tenant = world.tenant()
        first = kit_of(world, tenant, seller.reads)
        made = tagged_role(seller, customer, world, tenant)
        assert made["permission_set_version"] == 1
        assert page_of(world, tenant).select(".set-update") == []
    seller.write(seller.reads, 2, READS, MORE)
    seller.write(seller.writes, 2, READS, WRITES, access="write", managed_policies=[AUDIT])
    role = Role(iam, made["role_arn"].rpartition("/")[2])
    unique_id, before = role.unique_id(), made_by(first["terraform"], vendor="Example Vendor")
    with seller.release() as (world, _):
        for chosen, sids in ((seller.reads, ["Read", "Tags"]), (seller.writes, ["Read", "Write"])):
            if chosen == seller.writes:
                ask_for(world.admin, made, chosen)
            asked = page_of(world, tenant).select_one("#set-update-1")
            assert "run this script" in asked.get_text()
            assert "Apply this configuration in place of your current one" in asked.get_text()
            written = asked.select_one("#set-update-1-terraform").get_text()
            policy = set_of(world, chosen)["policy"]
            after = made_by(written, vendor="Example Vendor")
            assert before._replace(policy=policy, permission_set=f"{chosen}@2") == after
            assert after.name == role.name
            audits = "arn:aws:iam::aws:policy/SecurityAudit" in written
            assert audits is (chosen == seller.writes)
            done = result_of(asked.select_one("#set-update-1-cli").get_text())
            assert done.stdout.strip() == made["role_arn"]
            assert [one["Sid"] for one in role.policy()["Statement"]] == sids
            proven = verify(world, made)
            assert proven["status"] == "verified"
            assert proven["permission_set"] == chosen
            assert proven["permission_set_version"] == 2
            assert page_of(world, tenant).select(".set-update") == []
    assert role.unique_id() == unique_id
