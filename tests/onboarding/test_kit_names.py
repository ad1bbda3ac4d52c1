"""What a kit's role and stack are called where a role of another permission set has the plain
name already.
"""

from urllib.parse import urlsplit

from bs4 import BeautifulSoup

from tests.onboarding.conftest import opened
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


def base_of(tenant):
    return f"deputy-{tenant['id'].replace('-', '')[-8:]}"


def policy_of(iam, name):
    return iam.get_role_policy(RoleName=name, PolicyName="permissions")["PolicyDocument"]


def link_of(world, tenant):
    """The path of a new onboarding link."""
    link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)
    return urlsplit(link["url"]).path


def left_over(app, path, name):
    """Whether the farewell names the stack, if it was launched through this link."""
    return f"<code>{name}</code>" in app.test_client().get(path).text


def each_key_opens_its_own(world, connections):
    """A key for one permission set issues for the role of that set alone."""
    for name in connections:
        narrow = world.key("credentials:issue", permission_sets=[name])
        for other, connection in connections.items():
            answer = narrow.raw("POST", path_of(connection, "/credentials"))
            assert answer.status_code == (200 if other == name else 403), answer.text


def test_another_default_set_leaves_the_role_alone_that_the_earlier_one_has(shop, customer, iam):
    """As sh connect.sh, the script of the new default set would put its rights into the role of
    the earlier one. By its account, too, no role of one set is connected as that of another.
    """
    reads, writes, world, tenant = cast_of(shop)
    first = launched(world, customer, tenant, reads)
    base, earlier = base_of(tenant), link_of(world, tenant)
    assert first["role_arn"].endswith(f":role/{base}")
    before = policy_of(iam, base)
    with shop.release(default=writes, publish=False) as (world, app):
        own, kit = f"{base}-{writes}", kit_of(world, tenant, writes)
        assert kit["role_name"] == kit["stack_name"] == own
        whole = opened(kit["organization_launch_url"])
        assert whole["stackName"] == f"{own}-organization"
        assert f"filteringText={own}" in kit["update"]["stack"]["console_url"]
        done = run_as(world.aws, customer.account, kit["aws_cli"])
        assert (done.returncode, done.stdout.strip().rpartition("/")[2]) == (0, own), done.stderr
        assert policy_of(iam, base) == before
        link, pasted = link_of(world, tenant), {"role_arn": customer.account}
        sent = app.test_client().post(f"{link}/connections", data=pasted)
        assert sent.status_code == 303, sent.text
        roles = {row["role_arn"]: row for row in connections_of(world, tenant)}
        second = roles[done.stdout.strip()]
        world.admin("POST", path_of(second, "/approve"), {})
        second = verify(world, second)
        assert (second["permission_set"], second["status"]) == (writes, "verified")
        assert roles[first["role_arn"]]["permission_set"] == reads
        each_key_opens_its_own(world, {reads: first, writes: second})
        asked = ((tenant, {}, writes), (world.tenant(), {"permission_set": reads}, reads))
        for owner, body, name in asked:
            path = f"/v1/tenants/{owner['id']}/connections"
            body |= {"account_id": Customer(world.aws).account}
            search = world.admin("POST", path, body, expect=201)
            role = f"/{kit_of(world, owner, name)['role_name']}"
            assert (search["permission_set"], search["role_arn"].endswith(role)) == (name, True)
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
        world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
        assert (left_over(app, link, own), left_over(app, earlier, base)) == (True, True)


def test_a_role_that_moved_keeps_its_name_and_its_earlier_set_makes_others(shop, customer):
    reads, writes, world, tenant = cast_of(shop)
    made = launched(world, customer, tenant, reads)
    ask_for(world.admin, made, writes)
    assert kit_of(world, tenant, reads)["role_name"] == base_of(tenant), "it has not moved yet"
    moved(world, customer, tenant, writes)
    [after] = connections_of(world, tenant)
    assert after["permission_set"] == writes
    assert after["role_arn"] == made["role_arn"]
    own, link = f"{base_of(tenant)}-{reads}", link_of(world, tenant)
    assert kit_of(world, tenant, reads)["role_name"] == own
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    assert left_over(shop.app, link, own)


def test_the_page_of_a_set_tells_how_a_role_that_moved_to_another_one_is_updated(shop, customer):
    reads, _, world, tenant = cast_of(shop)
    link = link_of(world, tenant)
    made = launched(world, customer, tenant, reads)
    other = f"t{reads}"
    ask_for(world.admin, made, other)
    moved(world, customer, tenant, other)
    rotation = f"/v1/tenants/{tenant['id']}/external-id/rotation"
    world.admin("POST", rotation, {"reason": "it leaked", "emergency": True}, expect=201)
    page = BeautifulSoup(shop.app.test_client().get(link).text, "html.parser")
    assert f"your stack {base_of(tenant)} in" in page.select_one("#rotation details a").text
    done = run_as(world.aws, customer.account, page.select_one("#rotation-cli").text)
    assert done.stdout.strip() == made["role_arn"], done.stderr
    assert verify(world, made)["permission_set"] == other
    assert world.admin("GET", rotation)["connections"]["waiting"] == 0


def test_other_tenants_and_other_names_change_nothing(shop, customer):
    world = shop.world
    tenant, other = world.tenant(), world.tenant()
    kit = kit_of(world, tenant, shop.writes)
    for name in (f"{base_of(tenant)}-eu", base_of(other)):
        role_arn = customer.role(name, kit["trust_policy"])
        body = {"role_arn": role_arn, "permission_set": shop.writes}
        world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
    for each in (tenant, other):
        assert kit_of(world, each, shop.reads)["role_name"] == base_of(each)
    trust = kit_of(world, other, shop.reads)["trust_policy"]
    world.connect(other, customer.role(f"{base_of(tenant)}-us", trust))
    link = link_of(world, tenant)
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    assert left_over(shop.app, link, base_of(tenant))
