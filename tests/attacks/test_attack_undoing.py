"""What the vendor has stopped, a tenant's key can't start again; and the vendor's reasons stay
its own.
"""

import json
import re
from datetime import datetime, timedelta
from uuid import UUID

import pytest
import time_machine

from app.identity.scopes import ALL_SCOPES
from app.proofs import verification
from app.store.models import Trigger
from tests.attacks.evidence import case, issues_nothing
from tests.support.cast import OPERATOR, UNSET, Api, Customer, path_of, without_external_id
from tests.support.rows import ADMIN
from tests.web.conftest import visit

REASON = {"reason": "unpaid since spring, see ticket 4711"}


@pytest.fixture
def connection(world) -> dict:
    return world.connection()


@pytest.fixture
def mallory(world, connection) -> Api:
    """A key of the tenant's with every scope."""
    return world.key(*ALL_SCOPES, tenant={"id": connection["tenant_id"]})


def paths(connection):
    """Of the tenant, and of the connection."""
    return f"/v1/tenants/{connection['tenant_id']}", path_of(connection)


def connects(api, path, role_arn):
    made = api("POST", path, {"role_arn": role_arn}, expect=201)
    assert made["status"] == "verified"
    return made


def conflict(api, method, path, body=UNSET):
    """The detail of the refusal."""
    return api.refused(method, path, body, expect=409, code="conflict")["detail"]


@pytest.fixture
def path(connection) -> str:
    """The list of the tenant's connections."""
    return f"/v1/tenants/{connection['tenant_id']}/connections"


@pytest.fixture
def customer(world, connection) -> Customer:
    """The one whose account the connection is in."""
    return Customer(world.aws, connection["account_id"])


def test_what_the_vendor_suspended_a_bound_key_does_not_resume(world, connection, mallory):
    for path in paths(connection):
        world.admin("POST", f"{path}/suspend", REASON)
        conflict(mallory, "POST", f"{path}/resume", {"reason": "please"})
        assert world.admin("GET", path)["status"] == "suspended"
        mallory.refused("POST", path_of(connection, "/credentials"), expect=409, code="suspended")
        shown = mallory("GET", path)["suspended"]
        assert (shown["by"], shown["reason"]) == ("api_key", None)
        assert world.admin("GET", path)["suspended"]["reason"] == REASON["reason"]
        for many in (f"/v1/tenants/{connection['tenant_id']}/connections", "/v1/tenants"):
            assert REASON["reason"] not in json.dumps(mallory("GET", many))
        world.admin("POST", f"{path}/resume", {"reason": "paid"})


def test_what_a_bound_key_suspended_a_bound_key_resumes_until_the_vendor_suspends_it(
    world, connection, mallory
):
    """Whoever suspends first does not keep the vendor from it."""
    for path in paths(connection):
        for resumer in (mallory, world.admin):
            mallory("POST", f"{path}/suspend", {"reason": "a drill"})
            assert mallory("GET", path)["suspended"]["reason"] == "a drill"
            resumed = resumer("POST", f"{path}/resume", {"reason": "over"})
            assert resumed["status"] in {"active", "verified"}
        mallory("POST", f"{path}/suspend", {"reason": "so that nobody else can"})
        conflict(mallory, "POST", f"{path}/suspend", {"reason": "twice"})
        world.admin("POST", f"{path}/suspend", REASON)
        assert world.admin("GET", path)["suspended"]["reason"] == REASON["reason"]
        assert mallory("GET", path)["suspended"]["reason"] is None
        conflict(mallory, "POST", f"{path}/resume", {"reason": "please"})
        for again in (mallory, world.admin):
            conflict(again, "POST", f"{path}/suspend", {"reason": "twice"})
        world.admin("POST", f"{path}/resume", {"reason": "paid"})


def test_a_suspended_connection_is_not_deleted_and_added_again_instead(
    world, connection, mallory, path
):
    world.suspend(connection, **REASON)
    conflict(mallory, "DELETE", path_of(connection))
    conflict(mallory, "POST", path, {"role_arn": connection["role_arn"]})
    world.admin("DELETE", path_of(connection), expect=204)


@pytest.mark.parametrize("deletes", ["vendor", "operator", "mallory"])
def test_what_the_vendor_deleted_a_bound_key_does_not_add_again(
    world, connection, mallory, path, deletes
):
    role_arn = connection["role_arn"]
    if deletes == "operator":
        ids = UUID(connection["tenant_id"]), UUID(connection["id"])
        world.services.connections.delete(OPERATOR, *ids)
    else:
        api = mallory if deletes == "mallory" else world.admin
        api("DELETE", path_of(connection), expect=204)
    if deletes == "mallory":
        connects(mallory, path, role_arn)
        return
    for _ in range(2):
        assert "vendor" in conflict(mallory, "POST", path, {"role_arn": role_arn})
    connects(world.admin, path, role_arn)


def test_the_vendor_closes_what_a_bound_key_deleted_first(world, connection, mallory, path):
    """Mallory sees the vendor's deletion coming, and means to add the connection again under
    another id.
    """
    own, body = path_of(connection), {"role_arn": connection["role_arn"]}
    mallory("DELETE", own, expect=204)
    for stranger in (mallory, world.key("connections:write", tenant=world.tenant())):
        stranger.refused("DELETE", own, expect=404, code="not_found")
    world.admin("DELETE", own, expect=204)
    world.admin.refused("DELETE", own, expect=404, code="not_found")
    deleted = world.audit(action="connection.deleted", connection_id=connection["id"])
    assert [event["details"] for event in deleted] == [
        body | {"was": was, "status": "deleted", "version": 3} for was in ("deleted", "verified")
    ]
    assert "vendor" in conflict(mallory, "POST", path, body)
    connects(world.admin, path, body["role_arn"])


def second_role(world, customer, connection):
    kit = world.kit({"id": connection["tenant_id"]})
    return customer.role(f"{kit['role_name']}-second", kit["trust_policy"])


def test_no_other_role_of_the_account_goes_around_the_vendors_suspension(
    world, connection, mallory, path, customer
):
    world.suspend(connection, **REASON)
    other = second_role(world, customer, connection)
    visitor = visit(world, {"id": connection["tenant_id"]}, permission_set="bucket-sync")
    search = {"account_id": customer.account, "permission_set": "bucket-sync"}
    for body in ({"role_arn": other}, search):
        conflict(mallory, "POST", path, body)
    for text in (other, customer.account):
        answer = visitor.paste(text)
        assert answer.status_code == 409
        assert "The vendor suspended a connection in this AWS account" in answer.text
    [listed] = world.admin("GET", path)["items"]
    assert listed["id"] == connection["id"]
    assert world.calls_for(other) == []
    connects(mallory, path, world.role({"id": connection["tenant_id"]}))
    connects(world.admin, path, other)  # the vendor may


@pytest.mark.parametrize("prepared", ["pending", "suspended", "broken", "insecure"])
def test_a_connection_prepared_in_the_account_does_not_go_around_the_vendors_suspension(
    world, connection, mallory, path, customer, *, prepared
):
    """Its role was absent then, or a bound key had suspended it, or it was proven and then
    spoilt on purpose.
    """
    kit = world.kit({"id": connection["tenant_id"]})
    name, trust = f"{kit['role_name']}-second", kit["trust_policy"]
    body = {"role_arn": f"arn:aws:iam::{customer.account}:role/{name}"}
    others = world.kit(world.tenant())["trust_policy"]
    spoilt = {"broken": others, "insecure": without_external_id(trust)}.get(prepared)
    if spoilt:
        customer.role(name, trust)
    made = mallory("POST", path, body, expect=201)
    if spoilt:
        assert made["status"] == "verified"
        customer.retrust(name, spoilt)
        assert mallory("POST", path_of(made, "/verify"))["status"] == prepared
    if prepared == "suspended":
        mallory("POST", path_of(made, "/suspend"), {"reason": "until it is needed"})
    world.suspend(connection, **REASON)
    if spoilt:
        customer.retrust(name, trust)
    else:
        customer.role(name, trust)
    again = path_of(made, "/verify"), UNSET
    if prepared == "suspended":
        again = path_of(made, "/resume"), {"reason": "now"}
    conflict(mallory, "POST", *again)
    if prepared != "suspended":
        queue = world.services.proof_queue
        due = datetime.fromisoformat(world.read(made)["next_proof_at"])
        with time_machine.travel(due + timedelta(seconds=1), tick=False):
            claims = (*queue.claim(500), *queue.claim_routine(500))
            claim = next(claim for claim in claims if str(claim.connection_id) == made["id"])
            assert queue.prove(claim) is False
    assert world.read(made)["status"] == prepared
    world.admin("POST", path_of(connection, "/resume"), {"reason": "paid"})
    assert mallory("POST", *again)["status"] == "verified"


def test_the_vendors_suspension_leaves_what_was_proven_before_and_other_tenants_as_they_are(
    world, connection, mallory, path, customer
):
    kit = world.kit({"id": connection["tenant_id"]})
    before = connects(world.admin, path, second_role(world, customer, connection))
    own_suspension = {"reason": "a bound key's own suspension closes nothing"}
    mallory("POST", path_of(connection, "/suspend"), own_suspension)
    connects(mallory, path, customer.role(f"{kit['role_name']}-third", kit["trust_policy"]))
    world.suspend(connection, **REASON)
    assert mallory("POST", path_of(before, "/verify"))["status"] == "verified"
    other = world.tenant()
    own = world.key("connections:write", tenant=other)
    connects(own, f"/v1/tenants/{other['id']}/connections", world.role(other, customer))


@pytest.mark.parametrize("first", ["vendor", "mallory"])
def test_no_other_role_of_the_account_goes_around_the_vendors_deletion(
    world, connection, mallory, path, customer, *, first
):
    if first == "mallory":
        mallory("DELETE", path_of(connection), expect=204)
        before = connects(mallory, path, second_role(world, customer, connection))
        mallory("DELETE", path_of(before), expect=204)
    world.admin("DELETE", path_of(connection), expect=204)
    kit = world.kit({"id": connection["tenant_id"]})
    other = customer.role(f"{kit['role_name']}-third", kit["trust_policy"])
    visitor = visit(world, {"id": connection["tenant_id"]}, permission_set="bucket-sync")
    search = {"account_id": customer.account, "permission_set": "bucket-sync"}
    for body in ({"role_arn": other}, search):
        conflict(mallory, "POST", path, body)
    for text in (other, customer.account):
        answer = visitor.paste(text)
        assert answer.status_code == 409
        assert "The vendor deleted a connection in this AWS account" in answer.text
    assert world.admin("GET", path)["items"] == []
    connects(mallory, path, world.role({"id": connection["tenant_id"]}))
    connects(world.admin, path, other)
    connects(mallory, path, customer.role(f"{kit['role_name']}-fourth", kit["trust_policy"]))


# --- rotations ---


@pytest.fixture
def rotation(connection) -> str:
    """The path of the tenant's rotation."""
    return f"/v1/tenants/{connection['tenant_id']}/external-id/rotation"


EMERGENCY = REASON | {"emergency": True}


def test_what_the_vendor_began_to_replace_a_bound_key_does_not_abandon(
    world, connection, mallory, rotation
):
    """In an emergency, what the External ID opens would be issued again."""
    for body in (REASON, EMERGENCY):
        world.admin("POST", rotation, body, expect=201)
        conflict(mallory, "DELETE", rotation)
        assert world.admin("GET", rotation)["state"] == "open"
        if body is EMERGENCY:
            issues_nothing(mallory, connection, code="external_id_withdrawn")
        world.admin("DELETE", rotation, expect=204)


def test_a_bound_key_abandons_what_a_bound_key_began_until_the_vendor_makes_it_an_emergency(
    world, mallory, rotation
):
    drill = {"reason": "a drill"}
    for first in (drill, drill | {"emergency": True}):
        for abandons in (mallory, world.admin):
            mallory("POST", rotation, first, expect=201)
            abandons("DELETE", rotation, expect=204)
        mallory("POST", rotation, first, expect=201)
        for _ in range(2):
            world.admin("POST", rotation, EMERGENCY)
            mallory("POST", rotation, first | {"emergency": True})
            conflict(mallory, "DELETE", rotation)
        world.admin("DELETE", rotation, expect=204)
    events = world.audit(action="rotation.made_emergency", tenant_id=rotation.split("/")[3])
    assert [event["details"]["reason"] for event in events] == [REASON["reason"]] * 2


# --- the audit log that a bound key reads ---


FEED = "&after=00000000-0000-0000-0000-000000000000"


def test_a_bound_key_does_not_read_the_vendors_words_in_the_audit_log(
    world, connection, mallory, monkeypatch
):
    # The feed shows at once what was just made.
    monkeypatch.setattr("app.audit.log.FEED_SECONDS", -3600)
    vendors = world.key(*ALL_SCOPES, name="Jane Doe's laptop")
    vendors("POST", path_of(connection, "/credentials"), {"reason": "incident 7"})
    vendors("POST", path_of(connection, "/suspend"), REASON)
    words = ["registrations", "void", connection["tenant_id"]]
    world.admin.app.test_cli_runner().invoke(args=words)
    for order in ("", FEED):
        with case(order or "newest first"):
            path = f"/v1/audit-events?limit=200&tenant_id={connection['tenant_id']}{order}"
            events = mallory("GET", path)["items"]
            full = {event["id"]: event for event in world.admin("GET", path)["items"]}
            secret = f"Jane Doe|tests' admin|incident 7|{REASON['reason']}"
            assert not re.search(secret, json.dumps(events))
            for event in events:
                assert (event["actor"]["name"], event["client_address"]) == ("the vendor", None)
                assert event["action"] == full[event["id"]]["action"]
            assert {event["actor"]["kind"] for event in events} == {"api_key", "operator"}
            names = {event["actor"]["name"] for event in full.values()}
            assert {"Jane Doe's laptop", "tests' admin"} <= names
            assert REASON["reason"] in json.dumps(full)


def test_a_proof_beside_it_does_not_hide_a_call_that_the_role_accepted(
    world, customer, monkeypatch
):
    """A tenant may ask for a proof at any moment, with the hole closed for as long."""
    tenant = world.tenant()
    kit = world.kit(tenant)
    name, good = kit["role_name"], kit["trust_policy"]
    made = world.connect(tenant, customer.role(name, good))

    def loose_for_a_moment(*arguments):
        monkeypatch.undo()
        customer.retrust(name, without_external_id(good))
        finding = verification.prove_routinely(*arguments)
        customer.retrust(name, good)
        assert world.verify(made)["status"] == "verified"
        return finding

    monkeypatch.setattr(verification, "prove_routinely", loose_for_a_moment)
    verify = world.services.verification.verify
    found = verify(ADMIN, UUID(tenant["id"]), UUID(made["id"]), trigger=Trigger.SCHEDULED)
    assert found.status == "insecure"


@pytest.mark.usefixtures("impatient")
def test_a_search_that_found_a_hole_can_not_be_removed_from_the_page(world, customer):
    """That would leave no trace of the hole."""
    tenant = world.tenant()
    kit = world.kit(tenant)
    loose = customer.role(kit["role_name"], without_external_id(kit["trust_policy"]))
    made = world.connect(tenant, loose, status="insecure")
    world.admin("DELETE", path_of(made), expect=204)
    customer.remove_role(kit["role_name"])
    path = f"/v1/tenants/{tenant['id']}/connections"
    again = world.admin("POST", path, {"account_id": customer.account}, expect=201)
    assert again["status"] == "pending"
    assert visit(world, tenant).raw(f"/connections/{again['id']}/stop", "POST").status_code == 409
