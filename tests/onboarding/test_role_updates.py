"""The onboarding page's instructions that update roles: each role gets those that fit it."""

import copy
import json

from tests.onboarding.test_kit_names import base_of, link_of, policy_of
from tests.onboarding.test_set_versions import (
    ask_for,
    cast_of,
    connections_of,
    kit_of,
    launched,
    moved,
    verify,
)
from tests.support.cast import Customer, path_of
from tests.support.shells import run_as
from tests.support.versions import MORE, READS, page_of, registered
from tests.web.conftest import text_of


def rotated(world, tenant, **body):
    """The page's section about a rotation that has begun."""
    path = f"/v1/tenants/{tenant['id']}/external-id/rotation"
    world.admin("POST", path, {"reason": "x", **body}, expect=201)
    return page_of(world, tenant).select_one("#rotation")


def instructions(section, kind):
    return {block["id"]: block.text for block in section.select(f"code[id^={kind}]")}


def test_a_rotation_tells_how_each_role_is_updated_under_its_own_name(shop, customer):
    """One role moved to the set and kept its name, one was made by the kit, one by hand."""
    reads, _, world, tenant = cast_of(shop)
    other, second, third = f"t{reads}", Customer(world.aws), Customer(world.aws)
    first = launched(world, customer, tenant, reads)
    ask_for(world.admin, first, other)
    moved(world, customer, tenant, other)
    kit = kit_of(world, tenant, other)
    second.create_stack(kit["launch_stack_url"])
    registered(world, world.admin.app, second)
    made = {"role_arn": third.role("deputy-own", kit["trust_policy"]), "permission_set": other}
    world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", made, expect=201)
    section = rotated(world, tenant)
    configurations = instructions(section, "rotation").values()
    for role in connections_of(world, tenant):
        name = role["role_arn"].rpartition("/")[2]
        assert (
            len([each for each in configurations if f'name = "{name}"' in " ".join(each.split())])
            == 1
        )
    commands = [
        text for key, text in instructions(section, "update").items() if key.endswith("-stack")
    ]
    for account, name in ((customer.account, base_of(tenant)), (second.account, kit["role_name"])):
        command = next(each for each in commands if f"--stack-name {name} " in each)
        done = run_as(world.aws, account, command)
        assert done.returncode == 0, done.stderr


def test_roles_of_different_versions_are_asked_for_the_values_that_they_lack(seller, customer):
    parameter = {
        "name": "Bucket",
        "pattern": "[a-z]{3}",
        "description": "A bucket",
        "example": "abc",
    }
    uses = READS | {"Sid": "Bucket", "Resource": "arn:${AWS::Partition}:s3:::${Bucket}"}
    second = Customer(customer._aws)
    with seller.release() as (world, _):
        tenant = world.tenant()
        launched(world, customer, tenant, seller.reads)
    seller.write(seller.reads, 2, READS, uses, parameters=[parameter])
    with seller.release() as (world, app):
        launch = kit_of(world, tenant, seller.reads)["launch_stack_url"]
        second.create_stack(launch, Bucket="abc")
        registered(world, app, second)
        sections = rotated(world, tenant).select(".where, details")
        asked, account = {}, ""
        for part in sections:
            if part.name == "span":
                account = text_of(part).removeprefix("Account ")
            elif part.find(id=lambda value: value and value.endswith("-stack")):
                asked[account] = "for you to fill in" in text_of(part)
        assert asked == {customer.account: True, second.account: False}


def test_a_role_whose_set_was_removed_is_told_of_its_trust_policy_alone(seller, customer, iam):
    with seller.release() as (world, app):
        tenant = world.tenant()
        customer.create_stack(kit_of(world, tenant, seller.writes)["launch_stack_url"])
        registered(world, app, customer)
        [made] = connections_of(world, tenant)
        world.admin("POST", path_of(made, "/approve"), {})
        assert verify(world, made)["status"] == "verified"
    seller.withdraw(seller.writes)
    with seller.release() as (world, _):
        section = rotated(world, tenant)
        assert {block["id"] for block in section.select("pre code")} == {
            "new-external-id",
            "rotation-trust",
            "rotation-trust-command",
        }
        done = run_as(
            world.aws, customer.account, section.select_one("#rotation-trust-command").text
        )
        assert done.returncode == 0, done.stderr
        following = world.kit(tenant)["next_external_id"]
        role = iam.get_role(RoleName=made["role_arn"].rpartition("/")[2])["Role"]
        assert following in json.dumps(role["AssumeRolePolicyDocument"])


def test_a_rotation_leaves_a_set_that_awaits_approval_and_tells_of_newer_permissions(
    seller, customer, iam
):
    with seller.release() as (world, _):
        tenant = world.tenant()
        bound = world.key("connections:write", "connections:read", tenant=tenant)
        ask_for(bound, launched(world, customer, tenant, seller.reads), seller.writes)
        moved(world, customer, tenant, seller.writes)
    before = policy_of(iam, base_of(tenant))
    with seller.release() as (world, _):
        section = rotated(world, tenant)
        assert "also give the role the permissions" not in text_of(section)
        done = run_as(world.aws, customer.account, section.select_one("#update-stack").text)
        assert done.returncode == 0, done.stderr
        assert policy_of(iam, base_of(tenant)) == before
    seller.write(seller.writes, 2, READS, MORE, access="write")
    with seller.release() as (world, _):
        page = page_of(world, tenant)
        assert "also give the role the permissions" in text_of(page.select_one("#rotation"))
        assert "has these permissions now" in text_of(page.select_one(".set-update"))
        assert "s3:GetBucketTagging" not in text_of(page.select_one(".set-update"))


def test_the_end_that_a_customer_set_stays_in_the_trust_policy_of_each_role(shop):
    """Also of roles beyond those whose instructions are shown in full."""
    world, tenant = shop.world, shop.world.tenant()
    kit = world.kit(tenant)
    ends = [f"203{year}-12-31T00:00:00Z" for year in range(5)]
    for end in [None, *ends]:
        trust = copy.deepcopy(kit["trust_policy"])
        if end:
            date = {"aws:CurrentTime": end}
            trust["Statement"][0]["Condition"]["DateLessThan"] = date
        world.connect(tenant, Customer(world.aws).reading_itself(kit["role_name"], trust))
    shown = "".join(instructions(rotated(world, tenant), "rotation-trust").values())
    assert all(end in shown for end in ends)
    assert shown.count("ArnEquals") == 6


def test_the_reviewer_is_told_of_the_roles_with_another_set(shop, customer):
    reads, writes, world, tenant = cast_of(shop)
    link, client = link_of(world, tenant), shop.app.test_client()
    made = launched(world, customer, tenant, reads)
    assert client.get(f"{link}/review.json").get_json()["other_roles"] == []
    ask_for(world.admin, made, writes)
    moved(world, customer, tenant, writes)
    [other] = client.get(f"{link}/review.json").get_json()["other_roles"]
    assert other["role_arn"] == made["role_arn"]
