"""Versions of permission sets: what a role has, and how it comes to have another."""

import json
import re

import pytest
from botocore.exceptions import ClientError

from tests.onboarding.conftest import opened
from tests.support.cast import Api, Customer, path_of, root_client
from tests.support.versions import MORE, READS, page_of, registered


def kit_of(world, tenant, name):
    return world.admin("GET", f"/v1/tenants/{tenant['id']}/onboarding?permission_set={name}")


def connections_of(world, tenant, query=""):
    return world.admin("GET", f"/v1/tenants/{tenant['id']}/connections{query}")["items"]


def launched(world, customer, tenant, name):
    """The connection of a stack that was launched from the kit's link, proven."""
    customer.create_stack(kit_of(world, tenant, name)["launch_stack_url"])
    registered(world, world.admin.app, customer)
    [made] = connections_of(world, tenant)
    return verify(world, made)


def verify(world, made):
    return world.admin("POST", path_of(made, "/verify"))


def ask_for(api, made, name):
    return api("PATCH", path_of(made), {"permission_set": name})


def cast_of(shop):
    """A tenant at the shop, and what its tests ask for."""
    return shop.reads, shop.writes, shop.world, shop.world.tenant()


def update_stack(world, customer, name, template_url=None, kept=None, **given):
    """Update a stack with these values. `kept`: parameters that keep theirs, or all others.

    Without a URL its template stays.
    """
    template = {"TemplateURL": template_url} if template_url else {"UsePreviousTemplate": True}
    cloudformation = root_client(world.aws, "cloudformation", customer.account)
    [stack] = cloudformation.describe_stacks(StackName=name)["Stacks"]
    others = {parameter["ParameterKey"] for parameter in stack["Parameters"]} - given.keys()
    parameters = [
        {"ParameterKey": key, "UsePreviousValue": True}
        for key in sorted(others if kept is None else others & kept)
    ]
    parameters += [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    cloudformation.update_stack(
        StackName=name, Parameters=parameters, Capabilities=["CAPABILITY_NAMED_IAM"], **template
    )


def update(world, customer, kit, **filled_in):
    """The update that the kit describes, of a stack in the customer's account."""
    shown = kit["update"]["stack"]
    kept, given = (json.loads(part) for part in re.findall(r"`(\[.*?\])`", shown["aws_cli"]))
    values = {each["ParameterKey"]: each["ParameterValue"] for each in given} | filled_in
    name = opened(shown["console_url"])["filteringText"]
    update_stack(world, customer, name, kit["template_url"], set(kept), **values)


def moved(world, customer, tenant, name):
    update(world, customer, kit_of(world, tenant, name))
    registered(world, world.admin.app, customer)


def tag(iam, role, label):
    iam.tag_role(RoleName=role, Tags=[{"Key": "deputy:permission-set", "Value": label}])


def test_the_difference_is_of_actions_policies_statements_and_their_fields(seller):
    name, narrow = seller.reads, READS | {"Resource": "arn:aws:s3:::mine"}
    audit = {"name": "SecurityAudit", "why": "Reads all settings."}
    bucket = {"name": "Bucket", "pattern": "[a-z]{3}", "description": "A bucket", "example": "abc"}
    uses = {"Sid": "Bucket", "Resource": "arn:${AWS::Partition}:s3:::${Bucket}${Other}"}
    asked = [bucket | {"name": "Other"}, bucket]
    seller.write(name, 1, READS, MORE, READS | uses, parameters=asked, access="write")
    with seller.release():
        pass
    new, more = (
        READS | {"Sid": "New", "Action": "s3:GetBucketAcl"},
        uses["Resource"].replace("Other", "More"),
    )
    asked = [bucket | {"pattern": "[a-z]{4}", "example": "abcd"}, bucket | {"name": "More"}]
    seller.write(
        name,
        2,
        narrow,
        new,
        READS | uses | {"Resource": more},
        managed_policies=[audit],
        parameters=asked,
    )
    with seller.release() as (world, _):
        listed = world.admin("GET", f"/v1/permission-sets/{name}/versions")["items"]
        assert [each["version"] for each in listed] == [2, 1]
        assert [each["Sid"] for each in listed[1]["statements"]] == ["Read", "Tags", "Bucket"]
        path = f"/v1/permission-sets/{name}/difference"
        found = world.admin("GET", f"{path}?from=1&to=2")
        assert found["from"] == 1
        assert found["to"] == 2
        kinds = ("managed_policies", "statements", "parameters")
        names = {
            side: [
                found[side]["actions"],
                *(
                    [each.get("Sid") or each["name"] for each in found[side][kind]]
                    for kind in kinds
                ),
            ]
            for side in ("added", "removed")
        }
        assert names == {
            "added": [["s3:GetBucketAcl"], ["SecurityAudit"], ["New"], ["More"]],
            "removed": [["s3:GetBucketTagging"], [], ["Tags"], ["Other"]],
        }
        fields = ("sid", "parameter", "field", "from", "to", "why")
        assert [tuple(change[field] for field in fields) for change in found["changed"]] == [
            (None, None, "access", "write", "read", None),
            ("Read", None, "Resource", "*", "arn:aws:s3:::mine", READS["why"]),
            ("Bucket", None, "Resource", uses["Resource"], more, READS["why"]),
            (None, "Bucket", "pattern", "[a-z]{3}", "[a-z]{4}", None),
        ]
        same = world.admin("GET", f"{path}?from=2&to=2")
        assert same["added"] == same["removed"]
        assert same["changed"] == []
        problem = world.admin.refused(
            "GET", f"{path}?from=1&to=7", expect=422, code="validation_failed"
        )
        assert problem["errors"] == {"to": ["Must be one of: 1, 2."]}
        world.admin.refused("GET", f"{path}?from=1", expect=422, code="validation_failed")
        for absent in ("versions", "difference?from=1&to=2"):
            world.admin.refused(
                "GET", f"/v1/permission-sets/nothing/{absent}", expect=404, code="not_found"
            )


# --- what a role has ---


def words_of_update(world, tenant):
    """What the page says of the update that it asks for."""
    return " ".join(page_of(world, tenant).find(id="set-update-1").get_text(" ").split())


def the_page_explains_the_update(world, tenant, kit):
    page = page_of(world, tenant)
    summary = page.find(id="summary").text.strip()
    assert summary == "Connected. Other permissions are asked for: see below."
    [opened] = page.select("#set-update-1 details[open]")
    assert opened.find(id="set-update-1-template").text == kit["template_url"]
    assert page.select_one(".difference").get_text().count("s3:GetObject") == 1
    words = words_of_update(world, tenant)
    assert words.index("Bucket : for you to fill in") < words.index("ExternalId")
    for text in (
        "The permissions that Example Vendor asks for have changed",
        "Adds the statement Bucket: Shows your buckets. It allows s3:GetObject on",
        "Or run one command with the AWS CLI, with your value in the place of <Bucket>",
    ):
        assert text in words


def lists_tell_which_is_to_be_updated(world, tenant, old, other):
    for query, expected in (("true", old["id"]), ("false", other["id"])):
        listed = connections_of(world, tenant, f"?update_available={query}")
        assert [connection["id"] for connection in listed] == [expected]
    everywhere = world.admin("GET", "/v1/connections?limit=200&update_available=true")["items"]
    ids = {connection["id"] for connection in everywhere}
    assert old["id"] in ids
    assert other["id"] not in ids
    world.admin.refused(
        "GET", "/v1/connections?update_available=maybe", expect=422, code="validation_failed"
    )


def test_a_connection_knows_the_version_of_its_stack_and_of_its_updates(seller, customer, iam):
    """A new parameter must be filled in, and keeps its value in the next update."""
    name = seller.reads
    bucket = {
        "name": "Bucket",
        "pattern": "[a-z0-9.-]{3,63}",
        "description": "A bucket",
        "example": "acme-reports",
    }
    uses = READS | {
        "Sid": "Bucket",
        "Action": "s3:GetObject",
        "Resource": "arn:${AWS::Partition}:s3:::${Bucket}/*",
    }
    with seller.release() as (world, _):
        tenant = world.tenant()
        made = launched(world, customer, tenant, name)
        assert made["status"] == "verified"
        assert made["permission_set_version"] == 1
        assert made["update_available"] is False
        assert kit_of(world, tenant, name)["permission_set_version"] == 1
    seller.write(name, 2, READS, uses, parameters=[bucket])
    with seller.release() as (world, app):
        kit = kit_of(world, tenant, name)
        assert '"ParameterValue": "<Bucket>"' in kit["update"]["stack"]["aws_cli"]
        the_page_explains_the_update(world, tenant, kit)
        [made] = connections_of(world, tenant)
        assert made["permission_set_version"] == 1
        assert made["update_available"] is True
        other = world.connect(tenant, world.role(tenant, Customer(world.aws)))
        assert other["permission_set_version"] is None, "it is not known"
        assert other["update_available"] is False
        lists_tell_which_is_to_be_updated(world, tenant, made, other)
        with pytest.raises(ClientError, match="Bucket"):
            update(world, customer, kit)
        update(world, customer, kit, Bucket="acme-reports")
        registered(world, app, customer)
        [_, made] = connections_of(world, tenant)
        shown = (made["status"], made["permission_set_version"], made["update_available"])
        assert shown == ("verified", 2, False), "a message changes no status"
    seller.write(name, 3, READS, MORE, uses, parameters=[bucket])
    with seller.release() as (world, _):
        moved(world, customer, tenant, name)
        [_, made] = connections_of(world, tenant)
        assert made["permission_set_version"] == 3
    role = made["role_arn"].partition("role/")[2]
    policy = iam.get_role_policy(RoleName=role, PolicyName="permissions")["PolicyDocument"]
    assert "arn:aws:s3:::acme-reports/*" in json.dumps(policy)


def test_a_move_to_a_set_whose_file_is_gone_does_not_hide_the_update_of_the_roles_own_set(
    seller, customer
):
    with seller.release() as (world, _):
        tenant = world.tenant()
        made = launched(world, customer, tenant, seller.reads)
        ask_for(world.admin, made, seller.writes)
    seller.write(seller.reads, 2, READS, MORE)
    seller.withdraw(seller.writes)
    with seller.release() as (world, _):
        assert "Adds the statement Tags: Shows their tags." in words_of_update(world, tenant)


def test_a_roles_own_tag_tells_a_version_that_was_published_or_is_asked_for_now(
    seller, customer, iam
):
    name = seller.reads
    with seller.release():
        seller.write(name, 3, READS)
    with seller.release(publish=False) as (world, _):
        tenant = world.tenant()
        kit = kit_of(world, tenant, name)
        made = world.connect(tenant, customer.reading_itself(kit["role_name"], kit["trust_policy"]))
        labels = (("2", None), ("3", 3), ("2", 3), ("1", 1), ("999999", 1))
        for label, expected in (
            *((f"{name}@{version}", known) for version, known in labels),
            ("nonsense", 1),
            ("other@5", 1),
        ):
            tag(iam, kit["role_name"], label)
            made = verify(world, made)
            assert made["permission_set"] == name, label
            assert made["permission_set_version"] == expected, label


class Workers:
    """Keys for some sets, in two processes, which have issued before, and so remember key and
    connection.
    """

    def __init__(self, shop, connection, *permission_sets):
        key = shop.world.key("credentials:issue", permission_sets=list(permission_sets)).key
        self._apis = [Api(app, key) for app in (shop.app, shop.other)]
        self._path = path_of(connection, "/credentials")
        self.work()

    def work(self):
        for api in self._apis:
            api("POST", self._path)

    def are_refused(self):
        """Returns the last refusal's words."""
        for api in self._apis:
            problem = api.refused("POST", self._path, expect=403, code="forbidden")
        return problem["detail"]


# --- another set ---


def tagless(shop, customer, tenant):
    """The connection of a role that may read itself and has no tag; of the set that reads."""
    kit = kit_of(shop.world, tenant, shop.reads)
    role_arn = customer.reading_itself(kit["role_name"], kit["trust_policy"])
    return shop.world.connect(tenant, role_arn)


def test_a_move_waits_for_the_stack_and_keeps_role_status_and_issuing(shop, customer):
    reads, writes, world, tenant = cast_of(shop)
    made = launched(world, customer, tenant, reads)
    workers = Workers(shop, made, reads)
    asked = ask_for(world.admin, made, writes)
    assert asked["permission_set"] == reads
    assert asked["wanted_permission_set"] == writes
    state = (asked["status"], asked["issues"], asked["awaiting_approval"])
    assert state == ("verified", True, False), "the vendor asks"
    assert asked["update_available"] is True
    workers.work()
    assert connections_of(world, tenant, "?update_available=true")
    kit = kit_of(world, tenant, writes)
    assert kit["role_name"].endswith(f"-{writes}"), "a new role has the set's name"
    filtered = f"filteringText={kit['role_name'].removesuffix('-' + writes)}"
    assert filtered in kit["update"]["stack"]["console_url"]
    assert f'"{made["role_arn"].partition("role/")[2]}"' in kit["update"]["terraform"], (
        "the one that is there stays"
    )
    moved(world, customer, tenant, writes)
    [after] = connections_of(world, tenant)
    assert after["permission_set"] == writes
    assert after["permission_set_version"] == 1
    assert after["wanted_permission_set"] is None
    assert after["update_available"] is False
    assert after["role_arn"] == made["role_arn"]
    assert after["status"] == "verified"
    assert after["issues"] is True
    Workers(shop, made, reads, writes)
    verify(world, made)  # which reads the role's tag
    workers.are_refused()
    Workers(shop, made, writes)
    events = {one["action"] for one in world.audit(connection_id=made["id"])}
    assert events >= {"connection.permission_set_asked", "connection.permission_set_changed"}
    assert filtered in kit_of(world, tenant, writes)["update"]["stack"]["console_url"]


def test_a_move_to_a_set_that_writes_waits_for_the_vendor(shop, customer):
    reads, writes, world, tenant = cast_of(shop)
    made = launched(world, customer, tenant, reads)
    workers, for_both = Workers(shop, made, reads), Workers(shop, made, reads, writes)
    own = world.key("connections:write", "connections:read", tenant=tenant)
    asked = ask_for(own, made, writes)
    assert asked["awaiting_approval"] is True
    assert asked["status"] == "verified"
    assert asked["issues"] is True
    for words in (
        "asks for other permissions: Set 1",
        "After the update, Example Vendor must approve it",
        "Adds the statement Write: Keeps old versions.",
    ):
        assert words in words_of_update(world, tenant)
    own.refused("POST", path_of(made, "/approve"), {}, expect=403, code="forbidden")
    workers.work()
    moved(world, customer, tenant, writes)
    assert "Example Vendor must approve them" in words_of_update(world, tenant)
    assert writes in workers.are_refused(), "the role can do more by now"
    for_both.work()
    [waiting] = connections_of(world, tenant)
    assert waiting["permission_set"] == reads
    assert waiting["awaiting_approval"] is True
    assert waiting["status"] == "verified"
    assert waiting["issues"] is True
    waiting = verify(world, made)
    assert waiting["permission_set"] == reads, "nor does a proof move it"
    assert waiting["status"] == "verified"
    world.admin("POST", path_of(made, "/approve"), {})
    [after] = connections_of(world, tenant)
    assert after["permission_set"] == writes
    assert after["awaiting_approval"] is False
    assert after["issues"] is True
    verify(world, made)  # which reads the role's tag
    workers.are_refused()
    Workers(shop, made, writes)
    world.admin.refused("POST", path_of(made, "/approve"), {}, expect=409, code="conflict")


def test_a_move_can_be_withdrawn_asked_for_again_and_approved_before_the_stack_moves(
    shop, customer
):
    reads, writes, world, tenant = cast_of(shop)
    made = tagless(shop, customer, tenant)
    own = world.key("connections:write", tenant=tenant)

    def ask(api, name):
        asked = ask_for(api, made, name)
        return asked["wanted_permission_set"], asked["awaiting_approval"]

    assert ask(own, writes) == (writes, True)
    assert ask(own, reads) == (None, False)
    assert ask(world.admin, writes) == (writes, False)
    assert ask(own, writes) == (writes, False), "the vendor has allowed it"
    for body, fields in (({"permission_set": "x"}, {"permission_set"}), ({}, None)):
        problem = own.refused("PATCH", path_of(made), body, expect=422, code="validation_failed")
        assert fields in (None, set(problem.get("errors", ())))
    assert ask(own, reads) == (None, False)
    assert ask(own, writes) == (writes, True)
    approved = world.admin("POST", path_of(made, "/approve"), {})
    state = (approved["wanted_permission_set"], approved["awaiting_approval"])
    assert state == (writes, False), "as if the vendor had asked"


@pytest.mark.parametrize("approved", [True, False])
def test_a_diagnosis_confirms_a_move_that_the_vendor_allows(shop, customer, iam, approved):
    """Of a role without a stack: it reads the tag, which Terraform and the script set."""
    reads, writes, world, tenant = cast_of(shop)
    made = tagless(shop, customer, tenant)
    asking = world.admin if approved else world.key("connections:write", tenant=tenant)
    ask_for(asking, made, writes)
    tag(iam, made["role_arn"].partition("role/")[2], f"{writes}@1")
    compared = world.admin("POST", path_of(made, "/diagnose"))["permissions"]
    assert compared["set"] == reads
    assert compared["version"] is None
    [after] = connections_of(world, tenant)
    names = ("permission_set", "awaiting_approval", "permission_set_version")
    state = [after[name] for name in (*names, "wanted_permission_set")]
    assert state == ([writes, False, 1, None] if approved else [reads, True, None, writes])
    events = [one["action"] for one in world.audit(connection_id=made["id"])]
    assert ("connection.permission_set_changed" in events) is approved


def test_a_key_for_one_set_gets_nothing_while_a_proof_sees_another_in_the_roles_tag(
    shop, customer, iam
):
    reads, writes, world, tenant = cast_of(shop)
    made = tagless(shop, customer, tenant)
    role = made["role_arn"].partition("role/")[2]
    workers, for_both = Workers(shop, made, reads), Workers(shop, made, reads, writes)
    own = world.key("connections:write", tenant=tenant)
    for asked in (writes, reads):  # and withdrawn, which changes no role
        ask_for(own, made, asked)
        tag(iam, role, f"{writes}@999")
        assert verify(world, made)["permission_set"] == reads
        workers.are_refused()
        for_both.work()
    tag(iam, role, f"{reads}@1")
    verify(world, made)
    workers.work()
    tag(iam, role, f"{writes}@1")
    assert world.admin("POST", path_of(made, "/diagnose"))["permissions"]["set"] == reads
    workers.are_refused()


def test_a_key_for_one_set_does_not_give_a_role_of_another_set_that_name(shop, customer):
    """The role has no tag, so the connection is all that Deputy knows of it."""
    reads, writes, world, tenant = cast_of(shop)
    kit = kit_of(world, tenant, writes)
    body = {"role_arn": customer.role(kit["role_name"], kit["trust_policy"])}
    path = f"/v1/tenants/{tenant['id']}/connections"
    made = world.admin("POST", path, body | {"permission_set": writes}, expect=201)
    limited = world.key("connections:write", tenant=tenant, permission_sets=[reads])
    asked = {"permission_set": reads}

    def refusal(method, where, sent):
        return limited.refused(method, where, sent, expect=403, code="forbidden")["detail"]

    assert writes in refusal("PATCH", path_of(made), asked)
    limited("DELETE", path_of(made), expect=204)
    assert writes in refusal("POST", path, body | asked)
    both = world.key("connections:write", tenant=tenant, permission_sets=[reads, writes])
    assert both("POST", path, body | asked, expect=201)["permission_set"] == reads


def test_a_message_changes_the_set_only_to_the_one_that_was_asked_for(shop, customer):
    reads, writes, world = shop.reads, shop.writes, shop.world
    third, tenant = f"t{reads}", world.tenant()
    made = launched(world, customer, tenant, reads)
    stack = made["role_arn"].partition("role/")[2]
    for asked, names in ((None, (writes, reads)), (third, (writes,))):
        if asked:
            ask_for(world.admin, made, asked)
        for name in names:
            update_stack(world, customer, stack, kit_of(world, tenant, name)["template_url"])
            registered(world, shop.app, customer)
        [after] = connections_of(world, tenant)
        assert after["permission_set"] == reads
        assert after["wanted_permission_set"] == asked


def test_a_connection_that_awaits_approval_may_move_to_a_set_that_reads(shop, customer):
    world = shop.world
    tenant = world.tenant()
    made = launched(world, customer, tenant, shop.writes)
    assert made["status"] == "pending"
    assert made["awaiting_approval"] is True
    own = world.key("connections:write", tenant=tenant)
    ask_for(own, made, shop.reads)
    moved(world, customer, tenant, shop.reads)
    [after] = connections_of(world, tenant)
    assert after["permission_set"] == shop.reads
    assert after["awaiting_approval"] is False
    assert verify(world, made)["status"] == "verified"


def test_of_two_sets_that_wait_the_vendor_approves_the_one_that_it_names(shop, customer):
    world, own_set, other_set = shop.world, shop.writes, f"t{shop.writes}"
    tenant = world.tenant()
    made = launched(world, customer, tenant, own_set)
    own, approve = world.key("connections:write", tenant=tenant), path_of(made, "/approve")
    asked = ask_for(own, made, other_set)
    assert asked["sets_to_approve"] == [own_set, other_set]
    refused = world.admin.refused("POST", approve, {}, expect=409, code="conflict")["detail"]
    assert own_set in refused
    assert other_set in refused
    for named, left, status in ((other_set, [own_set], "pending"), (own_set, [], "verified")):
        approved = world.admin("POST", approve, {"permission_set": named})
        assert approved["approved"] == named
        assert approved["status"] == status
        assert approved["sets_to_approve"] == left
    assert approved["permission_set"] == own_set
    assert approved["wanted_permission_set"] == other_set


@pytest.mark.parametrize("suspended", [False, True])
def test_sessions_that_the_customer_revoked_are_not_issued_again(shop, customer, suspended):
    """A stack's parameter revokes them. Its message is void while the tenant is suspended."""
    world, tenant = shop.world, shop.world.tenant()
    made = launched(world, customer, tenant, shop.reads)
    key, path = world.key("credentials:issue", tenant=tenant).key, path_of(made, "/credentials")
    processes = [Api(app, key) for app in (shop.app, shop.other)]
    before = {process("POST", path)["AccessKeyId"] for process in processes}
    whole = f"/v1/tenants/{tenant['id']}"
    if suspended:
        world.admin("POST", f"{whole}/suspend", {"reason": "x"})
    name = made["role_arn"].rpartition("/")[2]
    update_stack(world, customer, name, RevokeSessionsBefore="2026-11-30T00:00:00Z")
    registered(world, shop.app, customer)
    if suspended:
        world.admin("POST", f"{whole}/resume", {"reason": "y"})
    verify(world, made)
    after = {process("POST", path)["AccessKeyId"] for process in processes}
    assert before.isdisjoint(after)
    update_stack(world, customer, name, AccessUntil="2037-11-30T00:00:00Z")
    registered(world, shop.app, customer)
    verify(world, made)
    assert {process("POST", path)["AccessKeyId"] for process in processes} == after
