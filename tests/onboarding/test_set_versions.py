"""Versions of permission sets: what publishing records and refuses, what a role has, and how it
comes to have another.
"""

import json
import re
from contextlib import closing
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.exceptions import ClientError
from flask import Flask
from sqlalchemy import select

from app.errors import ConflictError
from app.store.models import PermissionSetVersion
from tests.attacks.evidence import on_sqlite
from tests.conftest import as_the_pipeline
from tests.support.cast import Api, Customer, World, path_of, root_client
from tests.support.versions import MORE, READS, WRITES, Vendor, page_of, registered

pytestmark = (
    on_sqlite  # tests/onboarding/test_publication.py and tests/connections/ are about the rows
)


@pytest.fixture
def vendor_of_sets(aws, vendor, config, tmp_path) -> Vendor:
    made = Vendor(aws, config.database_url, vendor, tmp_path)
    made.write(made.reads, 1, READS)
    made.write(made.writes, 1, READS, WRITES, access="write")
    return made


def kit_of(world: World, tenant, name: str):
    return world.admin("GET", f"/v1/tenants/{tenant['id']}/onboarding?permission_set={name}")


def connections_of(world: World, tenant, query: str = ""):
    return world.admin("GET", f"/v1/tenants/{tenant['id']}/connections{query}")["items"]


def launched(world: World, app, customer: Customer, tenant, name: str):
    """The connection of a stack that was launched from the kit's link, proven."""
    customer.create_stack(kit_of(world, tenant, name)["launch_stack_url"])
    registered(world, app, customer)
    [made] = connections_of(world, tenant)
    return world.admin("POST", path_of(made, "/verify"))


def update(world: World, customer: Customer, kit, **filled_in: str) -> None:
    """The update that the kit describes, of a stack in the customer's account."""
    command = kit["update"]["stack"]["aws_cli"]
    kept, given = (json.loads(found) for found in re.findall(r"`(\[.*?\])`", command))
    given = {one["ParameterKey"]: one["ParameterValue"] for one in given} | filled_in
    name = dict(
        parse_qsl(urlsplit(kit["update"]["stack"]["console_url"]).fragment.partition("?")[2])
    )["filteringText"]
    with closing(root_client(world.aws, "cloudformation", customer.account)) as cloudformation:
        has = {
            one["ParameterKey"]
            for one in cloudformation.describe_stacks(StackName=name)["Stacks"][0]["Parameters"]
        }
        parameters = [{"ParameterKey": one, "UsePreviousValue": True} for one in kept if one in has]
        parameters += [
            {"ParameterKey": one, "ParameterValue": value} for one, value in given.items()
        ]
        cloudformation.update_stack(
            StackName=name,
            TemplateURL=kit["template_url"],
            Parameters=parameters,
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )


# --- publishing ---


def test_a_changed_set_needs_a_higher_version(vendor_of_sets: Vendor):
    name = vendor_of_sets.reads
    with vendor_of_sets.release() as (world, _):
        [first] = world.admin("GET", f"/v1/permission-sets/{name}/versions")["items"]
        assert (first["version"], [one["Sid"] for one in first["statements"]]) == (1, ["Read"])
    vendor_of_sets.write(name, 1, READS | {"why": "In other words."}, title="Another title")
    with vendor_of_sets.release() as (world, _):
        [first] = world.admin("GET", f"/v1/permission-sets/{name}/versions")["items"]
        assert first["statements"][0]["why"] == "In other words."
    vendor_of_sets.write(name, 1, READS, MORE)
    assert (
        refusal_of(vendor_of_sets)
        == f"{name}: version: The bucket has version 1, which asks for something else. Raise"
        " version to 2."
    )
    with vendor_of_sets.release(publish=False) as (world, app):
        publication = app.extensions["deputy"].publication
        with app.extensions["deputy"].db.read() as db:
            query = select(PermissionSetVersion.content).where(PermissionSetVersion.name == name)
            [content] = db.scalars(query)
            assert len(content["statements"]) == 1, "nothing of it is recorded"
            assert "administrator" not in content, "the release before can't read it"
        missing = [
            url for url, state in publication.published() if state.value.startswith("is missing")
        ]
        assert any(f"/{name}/" in url for url in missing), "nothing of it is published"
    vendor_of_sets.write(name, 3, READS, MORE)
    with vendor_of_sets.release() as (world, _):
        found = world.admin("GET", f"/v1/permission-sets/{name}/versions")["items"]
        assert [one["version"] for one in found] == [3, 1]
    vendor_of_sets.write(name, 2, MORE)
    assert "The bucket has version 3 already. Raise version to 4." in refusal_of(vendor_of_sets)
    vendor_of_sets.write(name, 1, READS)
    with vendor_of_sets.release():
        """An earlier release may be published again as it was."""


@pytest.mark.parametrize("writing", [1, 3], ids=["an earlier version", "a later version"])
def test_a_name_that_stood_for_reading_never_writes(vendor_of_sets: Vendor, writing: int):
    """Its connections were made without an approval, and keys that are limited to sets name it."""
    name = vendor_of_sets.reads
    if writing == 1:
        vendor_of_sets.write(name, 1, WRITES, access="write")
        with vendor_of_sets.release():
            """To read from then on is no question."""
    vendor_of_sets.write(name, 2, READS)
    with vendor_of_sets.release():
        pass
    vendor_of_sets.write(name, writing, WRITES, access="write")
    assert (
        refusal_of(vendor_of_sets)
        == f"{name}: access: The bucket has version 2 with access: read. The vendor's approval, and"
        " keys that are limited to some sets, rely on that word. Give the file of the set that"
        " writes another name, and ask for it with PATCH …/connections/{c}."
    )
    vendor_of_sets.write(name, 3, READS, MORE)
    with vendor_of_sets.release():
        """It may read more."""


def refusal_of(vendor_of_sets: Vendor) -> str:
    """The first line of what publishing the folder says."""
    with vendor_of_sets.release(publish=False) as (_, app):
        with pytest.raises(ConflictError) as caught, as_the_pipeline():
            app.extensions["deputy"].publication.publish()
        recorded = app.extensions["deputy"].onboarding.versions.refusals()
        sentence = caught.value.detail.splitlines()[0]
        in_database = [sentence.replace("The bucket", "The database")]
        assert list(recorded.values()) == in_database, "Deputy itself would not record it either"
    return sentence


def test_the_difference_is_of_actions_policies_statements_and_their_fields(vendor_of_sets: Vendor):
    name, narrow = vendor_of_sets.reads, READS | {"Resource": "arn:aws:s3:::mine"}
    audit = {"name": "SecurityAudit", "why": "Reads all settings."}
    bucket = {"name": "Bucket", "pattern": "[a-z]{3}", "description": "A bucket", "example": "abc"}
    uses = {"Sid": "Bucket", "Resource": "arn:${AWS::Partition}:s3:::${Bucket}${Other}"}
    asked = [bucket | {"name": "Other"}, bucket]
    vendor_of_sets.write(name, 1, READS, MORE, READS | uses, parameters=asked, access="write")
    with vendor_of_sets.release():
        pass
    new, more = (
        READS | {"Sid": "New", "Action": "s3:GetBucketAcl"},
        uses["Resource"].replace("Other", "More"),
    )
    asked = [bucket | {"pattern": "[a-z]{4}", "example": "abcd"}, bucket | {"name": "More"}]
    vendor_of_sets.write(
        name,
        2,
        narrow,
        new,
        READS | uses | {"Resource": more},
        managed_policies=[audit],
        parameters=asked,
    )
    with vendor_of_sets.release() as (world, _):
        path = f"/v1/permission-sets/{name}/difference"
        found = world.admin("GET", f"{path}?from=1&to=2")
        assert (found["from"], found["to"]) == (1, 2)
        assert found["added"]["actions"] == ["s3:GetBucketAcl"]
        assert found["added"]["managed_policies"] == [audit]
        assert [one["Sid"] for one in found["added"]["statements"]] == ["New"]
        assert found["removed"]["actions"] == ["s3:GetBucketTagging"]
        assert [one["Sid"] for one in found["removed"]["statements"]] == ["Tags"]
        assert found["removed"]["managed_policies"] == []
        names = {
            side: [one["name"] for one in found[side]["parameters"]]
            for side in ("added", "removed")
        }
        assert names == {"added": ["More"], "removed": ["Other"]}
        of_resource = {"field": "Resource", "parameter": None, "why": READS["why"]}
        assert found["changed"] == [
            {
                "sid": None,
                "why": None,
                "parameter": None,
                "field": "access",
                "from": "write",
                "to": "read",
            },
            of_resource | {"sid": "Read", "from": "*", "to": "arn:aws:s3:::mine"},
            of_resource | {"sid": "Bucket", "from": uses["Resource"], "to": more},
            {
                "field": "pattern",
                "parameter": "Bucket",
                "sid": None,
                "why": None,
                "from": "[a-z]{3}",
                "to": "[a-z]{4}",
            },
        ]
        same = world.admin("GET", f"{path}?from=2&to=2")
        assert (same["added"], same["changed"]) == (same["removed"], [])
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


def test_a_connection_knows_the_version_of_its_stack_and_of_an_update(
    vendor_of_sets: Vendor, customer: Customer
):
    name = vendor_of_sets.reads
    with vendor_of_sets.release() as (world, app):
        tenant = world.tenant()
        made = launched(world, app, customer, tenant, name)
        assert (made["status"], made["permission_set_version"], made["update_available"]) == (
            "verified",
            1,
            False,
        )
        assert kit_of(world, tenant, name)["permission_set_version"] == 1
    vendor_of_sets.write(name, 2, READS, MORE)
    with vendor_of_sets.release() as (world, app):
        [made] = connections_of(world, tenant)
        assert (made["permission_set_version"], made["update_available"]) == (1, True)
        other = world.connect(tenant, world.role(tenant, Customer(world.aws)))
        assert (other["permission_set_version"], other["update_available"]) == (None, False), (
            "it is not known"
        )
        for query, expected in (("true", [made["id"]]), ("false", [other["id"]])):
            listed = connections_of(world, tenant, f"?update_available={query}")
            assert [one["id"] for one in listed] == expected
        everywhere = world.admin("GET", "/v1/connections?limit=200&update_available=true")["items"]
        assert made["id"] in [one["id"] for one in everywhere]
        assert other["id"] not in [one["id"] for one in everywhere]
        world.admin.refused(
            "GET", "/v1/connections?update_available=maybe", expect=422, code="validation_failed"
        )
        update(world, customer, kit_of(world, tenant, name))
        registered(world, app, customer)
        [_, made] = connections_of(world, tenant)
        assert (made["permission_set_version"], made["update_available"]) == (2, False)
        assert made["status"] == "verified", "a message changes no status"


def test_a_roles_own_tag_tells_a_version_that_was_published_or_is_asked_for_now(
    vendor_of_sets: Vendor, customer: Customer
):
    name = vendor_of_sets.reads
    with vendor_of_sets.release():
        vendor_of_sets.write(name, 3, READS)
    with vendor_of_sets.release(publish=False) as (world, _):
        tenant = world.tenant()
        kit = kit_of(world, tenant, name)
        made = world.connect(tenant, customer.reading_itself(kit["role_name"], kit["trust_policy"]))
        labels = (("2", None), ("3", 3), ("2", 3), ("1", 1), ("999999", 1))
        for label, expected in (
            *((f"{name}@{version}", known) for version, known in labels),
            ("nonsense", 1),
            ("other@5", 1),
        ):
            tag(world, customer, kit["role_name"], label)
            made = world.admin("POST", path_of(made, "/verify"))
            assert (made["permission_set"], made["permission_set_version"]) == (name, expected), (
                label
            )


def tag(world: World, customer: Customer, role: str, label: str) -> None:
    with closing(root_client(world.aws, "iam", customer.account)) as iam:
        iam.tag_role(RoleName=role, Tags=[{"Key": "deputy:permission-set", "Value": label}])


# --- another set ---


def moved(world: World, app, customer: Customer, tenant, name: str) -> None:
    update(world, customer, kit_of(world, tenant, name))
    registered(world, app, customer)


class Workers:
    """Keys for some sets, in two processes, which have issued before, and so remember key and
    connection.
    """

    def __init__(self, world: World, other: Flask, made, *permission_sets: str) -> None:
        key = world.key("credentials:issue", permission_sets=list(permission_sets)).key
        self._apis, self._path = (
            [Api(app, key) for app in (world.admin.app, other)],
            path_of(made, "/credentials"),
        )
        self.work()

    def work(self) -> None:
        for api in self._apis:
            api("POST", self._path)

    def are_refused(self) -> str:
        """Returns the last refusal's words."""
        details = [
            api.refused("POST", self._path, expect=403, code="forbidden")["detail"]
            for api in self._apis
        ]
        return details[-1]


def test_a_move_waits_for_the_stack_and_keeps_role_status_and_issuing(
    vendor_of_sets: Vendor, customer: Customer
):
    reads, writes = vendor_of_sets.reads, vendor_of_sets.writes
    with (
        vendor_of_sets.release() as (world, app),
        vendor_of_sets.release(publish=False) as (_, other),
    ):
        tenant = world.tenant()
        made = launched(world, app, customer, tenant, reads)
        workers = Workers(world, other, made, reads)
        asked = world.admin("PATCH", path_of(made), {"permission_set": writes})
        assert (asked["permission_set"], asked["wanted_permission_set"]) == (reads, writes)
        assert (asked["status"], asked["issues"], asked["awaiting_approval"]) == (
            "verified",
            True,
            False,
        ), "the vendor asks"
        assert asked["update_available"] is True
        workers.work()
        assert connections_of(world, tenant, "?update_available=true")
        kit = kit_of(world, tenant, writes)
        assert kit["role_name"].endswith(f"-{writes}"), "a new role has the set's name"
        assert (
            f"filteringText={kit['role_name'].removesuffix('-' + writes)}"
            in kit["update"]["stack"]["console_url"]
        )
        assert f'"{made["role_arn"].partition("role/")[2]}"' in kit["update"]["terraform"], (
            "the one that is there stays"
        )
        moved(world, app, customer, tenant, writes)
        [after] = connections_of(world, tenant)
        assert (after["permission_set"], after["permission_set_version"]) == (writes, 1)
        assert (after["wanted_permission_set"], after["update_available"]) == (None, False)
        assert (after["role_arn"], after["status"], after["issues"]) == (
            made["role_arn"],
            "verified",
            True,
        )
        Workers(world, other, made, reads, writes).work()
        world.admin("POST", path_of(made, "/verify"))  # which reads the role's tag
        workers.are_refused()
        Workers(world, other, made, writes)
        events = [one["action"] for one in world.audit(connection_id=made["id"])]
        assert "connection.permission_set_asked" in events
        assert "connection.permission_set_changed" in events
        kit = kit_of(world, tenant, writes)
        assert (
            f"filteringText={kit['role_name'].removesuffix('-' + writes)}"
            in kit["update"]["stack"]["console_url"]
        )


@pytest.mark.parametrize("approved_first", [True, False])
def test_a_move_to_a_set_that_writes_waits_for_the_vendor(
    vendor_of_sets: Vendor, customer: Customer, approved_first
):
    reads, writes = vendor_of_sets.reads, vendor_of_sets.writes
    with (
        vendor_of_sets.release() as (world, app),
        vendor_of_sets.release(publish=False) as (_, other),
    ):
        tenant = world.tenant()
        made = launched(world, app, customer, tenant, reads)
        workers, for_both = (
            Workers(world, other, made, reads),
            Workers(world, other, made, reads, writes),
        )
        own = world.key("connections:write", "connections:read", tenant=tenant)
        asked = own("PATCH", path_of(made), {"permission_set": writes})
        assert (asked["awaiting_approval"], asked["status"], asked["issues"]) == (
            True,
            "verified",
            True,
        )
        own.refused("POST", path_of(made, "/approve"), {}, expect=403, code="forbidden")
        if approved_first:
            assert world.admin("POST", path_of(made, "/approve"), {})["awaiting_approval"] is False
        workers.work()
        moved(world, app, customer, tenant, writes)
        if not approved_first:
            assert writes in workers.are_refused(), "the role can do more by now"
            for_both.work()
            [waiting] = connections_of(world, tenant)
            assert (waiting["permission_set"], waiting["awaiting_approval"]) == (reads, True)
            assert (waiting["status"], waiting["issues"]) == ("verified", True)
            waiting = world.admin("POST", path_of(made, "/verify"))
            assert (waiting["permission_set"], waiting["status"]) == (reads, "verified"), (
                "nor does a proof move it"
            )
            world.admin("POST", path_of(made, "/approve"), {})
        [after] = connections_of(world, tenant)
        assert (after["permission_set"], after["awaiting_approval"], after["issues"]) == (
            writes,
            False,
            True,
        )
        world.admin("POST", path_of(made, "/verify"))  # which reads the role's tag
        workers.are_refused()
        Workers(world, other, made, writes)
        world.admin.refused("POST", path_of(made, "/approve"), {}, expect=409, code="conflict")


@pytest.mark.parametrize("approved", [True, False])
def test_a_diagnosis_confirms_a_move_that_the_vendor_allows(
    vendor_of_sets: Vendor, customer: Customer, approved
):
    """Of a role without a stack: it reads the tag, which Terraform and the script set."""
    reads, writes = vendor_of_sets.reads, vendor_of_sets.writes
    with vendor_of_sets.release() as (world, _):
        tenant = world.tenant()
        kit = kit_of(world, tenant, reads)
        made = world.connect(tenant, customer.reading_itself(kit["role_name"], kit["trust_policy"]))
        asking = world.admin if approved else world.key("connections:write", tenant=tenant)
        asking("PATCH", path_of(made), {"permission_set": writes})
        tag(world, customer, kit["role_name"], f"{writes}@1")
        found = world.admin("POST", path_of(made, "/diagnose"))["permissions"]
        assert (found["set"], found["version"]) == (reads, None), "what it was compared with"
        [after] = connections_of(world, tenant)
        assert (after["permission_set"], after["awaiting_approval"]) == (
            writes if approved else reads,
            not approved,
        )
        assert (after["permission_set_version"], after["wanted_permission_set"]) == (
            (1, None) if approved else (None, writes)
        )
        events = [one["action"] for one in world.audit(connection_id=made["id"])]
        assert ("connection.permission_set_changed" in events) is approved


def test_a_key_for_one_set_gets_nothing_while_a_proof_sees_another_in_the_roles_tag(
    vendor_of_sets: Vendor, customer: Customer
):
    reads, writes = vendor_of_sets.reads, vendor_of_sets.writes
    with (
        vendor_of_sets.release() as (world, _),
        vendor_of_sets.release(publish=False) as (_, other),
    ):
        tenant = world.tenant()
        kit = kit_of(world, tenant, reads)
        made = world.connect(tenant, customer.reading_itself(kit["role_name"], kit["trust_policy"]))
        workers, for_both = (
            Workers(world, other, made, reads),
            Workers(world, other, made, reads, writes),
        )
        own = world.key("connections:write", tenant=tenant)
        for asked in (writes, reads):  # and withdrawn, which changes no role
            own("PATCH", path_of(made), {"permission_set": asked})
            tag(world, customer, kit["role_name"], f"{writes}@999")
            assert world.admin("POST", path_of(made, "/verify"))["permission_set"] == reads
            workers.are_refused()
            for_both.work()
        tag(world, customer, kit["role_name"], f"{reads}@1")
        world.admin("POST", path_of(made, "/verify"))
        workers.work()
        tag(world, customer, kit["role_name"], f"{writes}@1")
        assert world.admin("POST", path_of(made, "/diagnose"))["permissions"]["set"] == reads
        workers.are_refused()


def test_a_key_for_one_set_does_not_give_a_role_of_another_set_that_name(
    vendor_of_sets: Vendor, customer: Customer
):
    """The role has no tag, so the connection is all that Deputy knows of it."""
    reads, writes = vendor_of_sets.reads, vendor_of_sets.writes
    with vendor_of_sets.release() as (world, _):
        tenant = world.tenant()
        kit = kit_of(world, tenant, writes)
        body = {"role_arn": customer.role(kit["role_name"], kit["trust_policy"])}
        path = f"/v1/tenants/{tenant['id']}/connections"
        made = world.admin("POST", path, body | {"permission_set": writes}, expect=201)
        limited = world.key("connections:write", tenant=tenant, permission_sets=[reads])
        asked = {"permission_set": reads}
        assert (
            writes
            in limited.refused("PATCH", path_of(made), asked, expect=403, code="forbidden")[
                "detail"
            ]
        )
        limited("DELETE", path_of(made), expect=204)
        assert (
            writes
            in limited.refused("POST", path, body | asked, expect=403, code="forbidden")["detail"]
        )
        both = world.key("connections:write", tenant=tenant, permission_sets=[reads, writes])
        assert both("POST", path, body | asked, expect=201)["permission_set"] == reads


def test_a_message_changes_the_set_only_to_the_one_that_was_asked_for(
    vendor_of_sets: Vendor, customer: Customer
):
    reads, writes = vendor_of_sets.reads, vendor_of_sets.writes
    third = f"t{reads}"
    vendor_of_sets.write(third, 1, READS, MORE)
    with vendor_of_sets.release() as (world, app):
        tenant = world.tenant()
        made = launched(world, app, customer, tenant, reads)
        stack = made["role_arn"].partition("role/")[2]
        for asked in (None, third):
            if asked:
                world.admin("PATCH", path_of(made), {"permission_set": asked})
            with closing(
                root_client(world.aws, "cloudformation", customer.account)
            ) as cloudformation:
                values = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["Parameters"]
                parameters = [
                    {"ParameterKey": one["ParameterKey"], "UsePreviousValue": True}
                    for one in values
                ]
                for name in (writes, reads) if asked is None else (writes,):
                    cloudformation.update_stack(
                        StackName=stack,
                        TemplateURL=kit_of(world, tenant, name)["template_url"],
                        Parameters=parameters,
                        Capabilities=["CAPABILITY_NAMED_IAM"],
                    )
                    registered(world, app, customer)
            [after] = connections_of(world, tenant)
            assert (after["permission_set"], after["wanted_permission_set"]) == (reads, asked)


def test_a_move_can_be_withdrawn_and_asked_for_again(vendor_of_sets: Vendor, customer: Customer):
    reads, writes = vendor_of_sets.reads, vendor_of_sets.writes
    with vendor_of_sets.release() as (world, app):
        tenant = world.tenant()
        made = launched(world, app, customer, tenant, reads)
        own = world.key("connections:write", tenant=tenant)
        own("PATCH", path_of(made), {"permission_set": writes})
        withdrawn = own("PATCH", path_of(made), {"permission_set": reads})
        assert (withdrawn["wanted_permission_set"], withdrawn["awaiting_approval"]) == (None, False)
        world.admin("PATCH", path_of(made), {"permission_set": writes})
        again = own("PATCH", path_of(made), {"permission_set": writes})
        assert again["awaiting_approval"] is False, "the vendor has allowed it"
        problem = own.refused(
            "PATCH", path_of(made), {"permission_set": "x"}, expect=422, code="validation_failed"
        )
        assert set(problem["errors"]) == {"permission_set"}
        own.refused("PATCH", path_of(made), {}, expect=422, code="validation_failed")


def test_a_connection_that_awaits_approval_may_move_to_a_set_that_reads(
    vendor_of_sets: Vendor, customer: Customer
):
    reads, writes = vendor_of_sets.reads, vendor_of_sets.writes
    with vendor_of_sets.release() as (world, app):
        tenant = world.tenant()
        made = launched(world, app, customer, tenant, writes)
        assert (made["status"], made["awaiting_approval"]) == ("pending", True)
        own = world.key("connections:write", tenant=tenant)
        own("PATCH", path_of(made), {"permission_set": reads})
        moved(world, app, customer, tenant, reads)
        [after] = connections_of(world, tenant)
        assert (after["permission_set"], after["awaiting_approval"]) == (reads, False)
        assert world.admin("POST", path_of(made, "/verify"))["status"] == "verified"


def test_of_two_sets_that_wait_the_vendor_approves_the_one_that_it_names(
    vendor_of_sets: Vendor, customer: Customer
):
    own_set, other_set = vendor_of_sets.writes, f"t{vendor_of_sets.writes}"
    vendor_of_sets.write(other_set, 1, READS, WRITES, MORE, access="write")
    with vendor_of_sets.release() as (world, app):
        tenant = world.tenant()
        made = launched(world, app, customer, tenant, own_set)
        asked = world.key("connections:write", tenant=tenant)(
            "PATCH", path_of(made), {"permission_set": other_set}
        )
        assert asked["sets_to_approve"] == [own_set, other_set]
        refused = world.admin.refused(
            "POST", path_of(made, "/approve"), {}, expect=409, code="conflict"
        )
        assert own_set in refused["detail"]
        assert other_set in refused["detail"]
        for named, left, status in ((other_set, own_set, "pending"), (own_set, None, "verified")):
            approved = world.admin("POST", path_of(made, "/approve"), {"permission_set": named})
            assert (approved["approved"], approved["status"]) == (named, status)
            assert approved["sets_to_approve"] == ([left] if left else [])
        assert (approved["permission_set"], approved["wanted_permission_set"]) == (
            own_set,
            other_set,
        )


def test_a_new_parameter_must_be_filled_in_and_a_known_one_keeps_its_value(
    vendor_of_sets: Vendor, customer: Customer
):
    name = vendor_of_sets.reads
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
    with vendor_of_sets.release() as (world, app):
        tenant = world.tenant()
        made = launched(world, app, customer, tenant, name)
    vendor_of_sets.write(name, 2, READS, uses, parameters=[bucket])
    with vendor_of_sets.release() as (world, app):
        kit = kit_of(world, tenant, name)
        assert '"ParameterValue": "<Bucket>"' in kit["update"]["stack"]["aws_cli"]
        [shown] = page_of(world, tenant).select("#set-update-1 details[open]")
        words = " ".join(shown.get_text(" ").split())
        assert words.index("Bucket : for you to fill in") < words.index("ExternalId")
        assert (
            "Or run one command with the AWS CLI, with your value in the place of <Bucket>" in words
        )
        with pytest.raises(ClientError, match="Bucket"):
            update(world, customer, kit)
        update(world, customer, kit, Bucket="acme-reports")
        registered(world, app, customer)
    vendor_of_sets.write(name, 3, READS, MORE, uses, parameters=[bucket])
    with vendor_of_sets.release() as (world, app):
        moved(world, app, customer, tenant, name)
        [after] = connections_of(world, tenant)
        assert after["permission_set_version"] == 3
        with closing(root_client(world.aws, "iam", customer.account)) as iam:
            role = made["role_arn"].partition("role/")[2]
            policy = iam.get_role_policy(RoleName=role, PolicyName="permissions")["PolicyDocument"]
        assert "arn:aws:s3:::acme-reports/*" in json.dumps(policy)
