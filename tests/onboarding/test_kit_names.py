"""What a kit's role and stack are called where a role of another permission set has the plain
name already.
"""

from contextlib import closing
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.attacks.evidence import on_sqlite
from tests.onboarding.test_set_versions import connections_of, kit_of, launched, moved
from tests.support.cast import Customer, World, path_of, root_client
from tests.support.shells import run_as
from tests.support.versions import READS, WRITES, Vendor

pytestmark = on_sqlite  # nothing here depends on the database


@pytest.fixture
def seller(aws, vendor, config, tmp_path) -> Vendor:
    made = Vendor(aws, config.database_url, vendor, tmp_path)
    made.write(made.reads, 1, READS)
    made.write(made.writes, 1, READS, WRITES, access="write")
    return made


def base_of(tenant) -> str:
    return f"deputy-{tenant['id'].replace('-', '')[-8:]}"


def policy_of(world: World, customer: Customer, name: str):
    with closing(root_client(world.aws, "iam", customer.account)) as iam:
        return iam.get_role_policy(RoleName=name, PolicyName="permissions")["PolicyDocument"]


def test_another_default_set_leaves_the_role_alone_that_the_earlier_one_has(
    seller: Vendor, customer: Customer
):
    """As sh connect.sh, the script of the new default set would put its rights into the role of
    the earlier one.
    """
    reads, writes = seller.reads, seller.writes
    with seller.release() as (world, app):
        tenant = world.tenant()
        first = launched(world, app, customer, tenant, reads)
        base = base_of(tenant)
        assert first["role_arn"].endswith(f":role/{base}")
        before = policy_of(world, customer, base)
    with seller.release(default=writes) as (world, _):
        kit = kit_of(world, tenant, writes)
        own = f"{base}-{writes}"
        assert (kit["role_name"], kit["stack_name"]) == (own, own)
        whole = dict(parse_qsl(urlsplit(kit["organization_launch_url"]).fragment.partition("?")[2]))
        assert whole["stackName"] == f"{own}-organization"
        assert f"filteringText={own}" in kit["update"]["stack"]["console_url"]
        done = run_as(world.aws, customer.account, kit["aws_cli"])
        assert (done.returncode, done.stdout.strip().rpartition("/")[2]) == (0, own), done.stderr
        assert policy_of(world, customer, base) == before
        body = {"role_arn": done.stdout.strip(), "permission_set": writes}
        second = world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
        for name, opened, other in ((reads, first, second), (writes, second, first)):
            narrow = world.key("credentials:issue", permission_sets=[name])
            narrow("POST", path_of(opened, "/credentials"))
            narrow.refused("POST", path_of(other, "/credentials"), expect=403, code="forbidden")
        again = kit_of(world, tenant, reads)
        assert again["role_name"] == f"{base}-{reads}", "for another account"
        assert f"filteringText={base}&" in f"{again['update']['stack']['console_url']}&", (
            "names that exist stay"
        )
        assert kit_of(world, world.tenant(), writes)["role_name"].count("-") == 1, (
            "a tenant without such a role"
        )
        world.admin("DELETE", path_of(first), expect=204)
        assert kit_of(world, tenant, writes)["role_name"] == own, "the role is still in the account"


def test_a_role_that_moved_keeps_its_name_and_its_earlier_set_makes_others(
    seller: Vendor, customer: Customer
):
    reads, writes = seller.reads, seller.writes
    with seller.release() as (world, app):
        tenant = world.tenant()
        made = launched(world, app, customer, tenant, reads)
        world.admin("PATCH", path_of(made), {"permission_set": writes})
        assert kit_of(world, tenant, reads)["role_name"] == base_of(tenant), "it has not moved yet"
        moved(world, app, customer, tenant, writes)
        [after] = connections_of(world, tenant)
        assert (after["permission_set"], after["role_arn"]) == (writes, made["role_arn"])
        own = f"{base_of(tenant)}-{reads}"
        assert kit_of(world, tenant, reads)["role_name"] == own
        link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)
        world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
        gone = app.test_client().get(urlsplit(link["url"]).path).text
        assert f"<code>{own}</code>" in gone, "what its stack would be called, if it was launched"


def test_a_role_is_searched_for_under_the_kits_name(seller: Vendor, customer: Customer):
    """By its account, over the API and on the page: never is the role of one set connected as
    that of another.
    """
    with seller.release() as (world, app):
        tenant = world.tenant()
        first = launched(world, app, customer, tenant, seller.reads)
        earlier = world.admin(
            "POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201
        )
    with seller.release(default=seller.writes) as (world, app):
        own = kit_of(world, tenant, seller.writes)["role_name"]
        elsewhere = Customer(world.aws)
        body = {"account_id": elsewhere.account}
        made = world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
        assert (made["permission_set"], made["role_arn"].rpartition("/")[2]) == (seller.writes, own)
        link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)
        path = f"{urlsplit(link['url']).path}/connections"
        done = app.test_client().post(path, data={"role_arn": customer.account})
        assert done.status_code == 303, done.text
        names = {one["role_arn"]: one["permission_set"] for one in connections_of(world, tenant)}
        assert names[f"arn:aws:iam::{customer.account}:role/{own}"] == seller.writes
        assert names[first["role_arn"]] == seller.reads
        world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
        for made_with, name in ((link, own), (earlier, base_of(tenant))):
            gone = app.test_client().get(urlsplit(made_with["url"]).path).text
            assert f"<code>{name}</code>" in gone, "what is left over"


def test_other_tenants_and_other_names_change_nothing(seller: Vendor, customer: Customer):
    with seller.release() as (world, app):
        tenant, other = world.tenant(), world.tenant()
        kit = kit_of(world, tenant, seller.writes)
        for name in (f"{base_of(tenant)}-eu", base_of(other)):
            role_arn = customer.role(name, kit["trust_policy"])
            body = {"role_arn": role_arn, "permission_set": seller.writes}
            world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
        for one in (tenant, other):
            assert kit_of(world, one, seller.reads)["role_name"] == base_of(one)
        world.connect(
            other,
            customer.role(
                f"{base_of(tenant)}-us", kit_of(world, other, seller.reads)["trust_policy"]
            ),
        )
        link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)
        world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
        assert (
            f"<code>{base_of(tenant)}</code>"
            in app.test_client().get(urlsplit(link["url"]).path).text
        )
