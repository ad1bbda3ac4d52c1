"""A role that no stack made, from version to version: by the script and the configuration that
the page shows then.
"""

import json
import re
from contextlib import closing
from functools import partial

import pytest

from tests.attacks.evidence import on_sqlite
from tests.onboarding.test_kit_scripts import made_by
from tests.onboarding.test_set_versions import kit_of
from tests.support.cast import Customer, World, path_of, root_client
from tests.support.shells import run_as
from tests.support.versions import MORE, READS, WRITES, Vendor, page_of

pytestmark = on_sqlite  # nothing here depends on the database

AUDIT = {"name": "SecurityAudit", "why": "Reads all settings."}
OWN = {"name": "IAMReadOnlyAccess"}  # which no set of the tests asks for
VIEW = {"name": "job-function/ViewOnlyAccess", "why": "Lists all resources."}


@pytest.fixture
def seller(aws, vendor, config, tmp_path) -> Vendor:
    return Vendor(aws, config.database_url, vendor, tmp_path)


@pytest.fixture
def printed_by(aws, customer: Customer):
    """Runs a script in the customer's account; returns what it prints."""

    def run(script: str) -> str:
        done = run_as(aws, customer.account, script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


class Role:
    """What AWS says of the customer's role."""

    def __init__(self, world: World, customer: Customer, name: str) -> None:
        self._iam, self.name = partial(root_client, world.aws, "iam", customer.account), name

    def attached(self) -> set[str]:
        with closing(self._iam()) as iam:
            found = iam.list_attached_role_policies(RoleName=self.name)["AttachedPolicies"]
        return {policy["PolicyArn"].removeprefix("arn:aws:iam::aws:policy/") for policy in found}

    def policy(self) -> dict:
        with closing(self._iam()) as iam:
            return iam.get_role_policy(RoleName=self.name, PolicyName="permissions")[
                "PolicyDocument"
            ]

    def unique_id(self) -> str:
        with closing(self._iam()) as iam:
            return iam.get_role(RoleName=self.name)["Role"]["RoleId"]


def test_the_script_attaches_and_detaches_policies_that_aws_keeps(
    seller: Vendor, customer: Customer, printed_by
):
    """By the script of a new role and by that of an update, which both work on a role that is
    there; the last one again.
    """
    ids, new, update = set(), lambda kit: kit["aws_cli"], lambda kit: kit["update"]["aws_cli"]
    for version, (managed, script) in enumerate(
        (([AUDIT], new), ([VIEW], update), ([], new)), start=1
    ):
        seller.write(seller.reads, version, READS, managed_policies=managed)
        with seller.release() as (world, _):
            tenant = world.tenant() if version == 1 else tenant  # noqa: F821  of the first round
            kit = kit_of(world, tenant, seller.reads)
            role_arn, role = printed_by(script(kit)), Role(world, customer, kit["role_name"])
            assert role.attached() == {policy["name"] for policy in managed}
            ids.add(role.unique_id())
            made = world.connect(tenant, role_arn) if version == 1 else made  # noqa: F821  the same
            found = world.admin("POST", path_of(made, "/diagnose"))["permissions"]
            assert (found["version"], found["missing"], found["beyond"]) == (version, [], [])
    assert len(ids) == 1, "it is the same role"


def test_the_script_detaches_nothing_that_the_vendor_never_asked_for(
    seller: Vendor, aws, customer: Customer
):
    """AUDIT was of another set of the vendor's, whose file is gone."""
    own = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}],
    }
    seller.write(seller.reads, 1, READS)
    seller.write(seller.writes, 1, READS, WRITES, access="write", managed_policies=[AUDIT])
    with seller.release():
        """Both sets are published."""
    seller.withdraw(seller.writes)
    with seller.release() as (world, _):
        kit = kit_of(world, world.tenant(), seller.reads)
        assert run_as(aws, customer.account, kit["aws_cli"]).returncode == 0
        with closing(root_client(aws, "iam", customer.account)) as iam:
            guard = iam.create_policy(PolicyName="guard", PolicyDocument=json.dumps(own))["Policy"][
                "Arn"
            ]
            for arn in (
                guard,
                *(f"arn:aws:iam::aws:policy/{policy['name']}" for policy in (AUDIT, OWN)),
            ):
                iam.attach_role_policy(RoleName=kit["role_name"], PolicyArn=arn)
            iam.put_role_policy(
                RoleName=kit["role_name"], PolicyName="guard", PolicyDocument=json.dumps(own)
            )
            done = run_as(aws, customer.account, kit["aws_cli"])
            assert done.returncode == 0, done.stderr
            assert "guard" in iam.list_role_policies(RoleName=kit["role_name"])["PolicyNames"]
        assert Role(world, customer, kit["role_name"]).attached() == {guard, OWN["name"]}
        assert re.findall("Detached (.*),", done.stderr) == [
            f"arn:aws:iam::aws:policy/{AUDIT['name']}"
        ]


def tagged_role(seller: Vendor, customer: Customer, world: World, tenant):
    """Connect a role as the script makes one of version 1."""
    kit = kit_of(world, tenant, seller.reads)
    values = {"deputy:permission-set": f"{seller.reads}@1", "deputy:vendor": "Example Vendor"}
    tags = [{"Key": key, "Value": value} for key, value in values.items()]
    return world.connect(
        tenant, customer.reading_itself(kit["role_name"], kit["trust_policy"], Tags=tags)
    )


def test_the_pages_script_updates_the_role_that_is_there_and_moves_it(
    seller: Vendor, customer: Customer, printed_by
):
    """It keeps its name, which is not that of the other set."""
    seller.write(seller.reads, 1, READS)
    with seller.release() as (world, _):
        tenant = world.tenant()
        made = tagged_role(seller, customer, world, tenant)
        assert made["permission_set_version"] == 1
        assert page_of(world, tenant).select(".set-update") == []
    seller.write(seller.reads, 2, READS, MORE)
    seller.write(seller.writes, 1, READS, WRITES, access="write")
    with seller.release() as (world, _):
        asked = page_of(world, tenant)
        assert "run this script" in asked.select_one("#set-update-1").get_text()
        role = Role(world, customer, made["role_arn"].rpartition("/")[2])
        before = role.unique_id()
        assert printed_by(asked.select_one("#set-update-1-cli").get_text()) == made["role_arn"]
        assert [one["Sid"] for one in role.policy()["Statement"]] == ["Read", "Tags"]
        assert role.unique_id() == before
        after = world.admin("POST", path_of(made, "/verify"))
        assert (after["status"], after["permission_set_version"]) == ("verified", 2)
        assert page_of(world, tenant).select(".set-update") == []
        world.admin("PATCH", path_of(made), {"permission_set": seller.writes})
        assert (
            printed_by(page_of(world, tenant).select_one("#set-update-1-cli").get_text())
            == made["role_arn"]
        )
        after = world.admin("POST", path_of(made, "/verify"))
        assert (after["permission_set"], after["permission_set_version"]) == (seller.writes, 1)


def test_the_pages_terraform_is_the_role_that_is_there_with_the_other_permissions(
    seller: Vendor, customer: Customer
):
    seller.write(seller.reads, 1, READS)
    with seller.release() as (world, _):
        tenant = world.tenant()
        first = kit_of(world, tenant, seller.reads)
        made = tagged_role(seller, customer, world, tenant)
    seller.write(seller.reads, 2, READS, MORE)
    seller.write(seller.writes, 1, READS, WRITES, access="write", managed_policies=[AUDIT])
    with seller.release() as (world, _):
        for chosen, version in ((seller.reads, 2), (seller.writes, 1)):
            if chosen == seller.writes:
                world.admin("PATCH", path_of(made), {"permission_set": chosen})
            asked = page_of(world, tenant)
            assert "Apply this configuration in place of your current one" in asked.get_text()
            written = asked.select_one("#set-update-1-terraform").get_text()
            before, after = (
                made_by(text, vendor="Example Vendor") for text in (first["terraform"], written)
            )
            assert (before.name, before.trust, before.external_id) == (
                after.name,
                after.trust,
                after.external_id,
            )
            assert after.name == made["role_arn"].rpartition("/")[2]
            assert after.permission_set == f"{chosen}@{version}"
            sets = world.admin("GET", "/v1/permission-sets")["items"]
            assert (
                after.policy
                == next(one["policy"] for one in sets if one["name"] == chosen)
                != before.policy
            )
            assert ("arn:aws:iam::aws:policy/SecurityAudit" in written) is (chosen == seller.writes)
