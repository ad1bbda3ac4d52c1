"""Declared accounts, and the vendor's word for roles that may write."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine

from app.clock import now
from app.identity.scopes import ALL_SCOPES
from app.store.database import SYSTEM
from app.store.models import Connection, Trigger
from tests.support.cast import Customer, path_of
from tests.support.rows import statements

WRITES = "bucket-sync"

pytestmark = pytest.mark.usefixtures("impatient")


def path(tenant):
    return f"/v1/tenants/{tenant['id']}"


def bound_to(world, tenant):
    return world.key(*ALL_SCOPES, tenant=tenant)


def declare(world, tenant, *accounts):
    world.admin("PATCH", path(tenant), {"accounts": list(accounts)})


# --- which accounts a role may be in ---


def test_the_vendor_declares_the_accounts_of_a_tenant(world, app):
    """The same list again changes nothing and is no event."""
    first, second = Customer(world.aws).account, Customer(world.aws).account
    made = world.admin(
        "POST", "/v1/tenants", {"name": "Acme", "accounts": [second, first, second]}, expect=201
    )
    assert made["accounts"] == sorted([first, second])
    assert world.admin("GET", path(made))["accounts"] == made["accounts"]
    assert "accounts" not in world.admin("GET", "/v1/tenants?limit=1")["items"][0]
    for accounts in ([first, second], [second, first, first], [first], [], [], None, None):
        shown = world.admin("PATCH", path(made), {"accounts": accounts})["accounts"]
        assert shown == (accounts and sorted({*accounts}))
    with statements(app.extensions["deputy"].db) as executed:
        world.admin("PATCH", path(made), {"accounts": None})
    assert not [statement for statement, _ in executed if "INTO tenant_accounts" in statement]
    *events, created = world.audit(tenant_id=made["id"])
    assert created["action"] == "tenant.created"
    assert [event["details"]["accounts"] for event in (*events, created)] == [None, 0, 1, 2]
    assert world.tenant()["accounts"] is None, "any account, unless it is said"
    bound_to(world, made).refused(
        "PATCH", path(made), {"accounts": []}, expect=403, code="forbidden"
    )


def test_accounts_are_a_list_of_at_most_ten_thousand_account_ids(world):
    many = [f"{number:012d}" for number in range(10_001)]
    for accounts in ("123456789012", ["12345678901"], ["123456789012\n"], [123456789012], many):
        body = {"name": "Acme", "accounts": accounts}
        world.admin.refused("POST", "/v1/tenants", body, expect=422, code="validation_failed")


def test_a_role_in_an_account_that_is_not_declared_is_refused_before_aws_is_asked(world):
    tenant = world.tenant()
    arn, bound = world.role(tenant), bound_to(world, tenant)
    declare(world, tenant, Customer(world.aws).account)
    for api in (world.admin, bound):
        for body in ({"role_arn": arn}, {"account_id": arn.split(":")[4]}):
            problem = api.refused(
                "POST", f"{path(tenant)}/connections", body, expect=422, code="role_not_allowed"
            )
            assert "ask Example Vendor to add it" in problem["detail"]
    assert world.calls_for(arn) == []
    declare(world, tenant, arn.split(":")[4])
    assert connect(world, tenant, bound, role_arn=arn)["status"] == "verified"


def test_a_list_that_leaves_out_a_live_connections_account_says_how_many(world):
    tenant = world.tenant()
    kept, left = (world.connection(tenant) for _ in range(2))
    body = {"accounts": [kept["account_id"]]}
    problem = world.admin.refused("PATCH", path(tenant), body, expect=409, code="conflict")
    assert "leaves out: 1." in problem["detail"]
    assert world.admin("GET", path(tenant))["accounts"] is None
    world.admin("DELETE", path_of(left), expect=204)
    world.admin("PATCH", path(tenant), body)


# --- the vendor's word for what may write ---


@pytest.fixture
def acme(world) -> dict[str, Any]:
    return world.tenant()


@pytest.fixture
def waiting(world, acme) -> dict:
    """A connection that may write, which a key of the tenant's made in an account that was not
    declared.
    """
    return connect(world, acme, bound_to(world, acme))


def approve(world, connection):
    shown = world.admin("POST", path_of(connection, "/approve"))
    return shown["status"], shown["awaiting_approval"]


def verify(world, connection):
    return world.admin("POST", path_of(connection, "/verify"))["status"]


def connect(world, tenant, api, **options):
    body = {"role_arn": world.role(tenant), "permission_set": WRITES} | options
    return api("POST", f"{path(tenant)}/connections", body, expect=201)


def test_a_role_that_may_write_is_proven_and_waits_for_the_vendor(world, acme, waiting):
    """Neither a proof, nor a resume, nor a bound key stands in for the approval. Then the
    connection issues at once.
    """
    assert waiting["issues"] is False
    assert waiting["verification"]["verdict"] == "proven"
    assert "approve" in waiting["why"]
    refused = world.admin.refused(
        "POST", path_of(waiting, "/credentials"), expect=409, code="connection_not_verified"
    )
    assert "approve" in refused["detail"]
    own, stranger = bound_to(world, acme), bound_to(world, world.tenant())
    own.refused("POST", path_of(waiting, "/approve"), expect=403, code="forbidden")
    stranger.refused("POST", path_of(waiting, "/approve"), expect=404, code="not_found")
    own("POST", path_of(waiting, "/suspend"), {"reason": "a trick"})
    resumed = own("POST", path_of(waiting, "/resume"), {"reason": "a trick"})
    for shown in (waiting, resumed, world.admin("POST", path_of(waiting, "/verify"))):
        assert shown["status"] == "pending"
        assert shown["awaiting_approval"] is True
    assert world.audit(connection_id=waiting["id"], action="connection.verified") == []
    assert approve(world, waiting) == ("verified", False)
    approved = world.admin("GET", path_of(waiting))
    checked_at = datetime.fromisoformat(approved["verification"]["checked_at"])
    due_at = datetime.fromisoformat(approved["next_proof_at"])
    assert due_at - checked_at == timedelta(minutes=2), "as after any first proof"
    world.admin("POST", path_of(waiting, "/credentials"))
    assert world.audit(connection_id=waiting["id"], action="connection.approved")
    world.admin.refused("POST", path_of(waiting, "/approve"), expect=409, code="conflict")


def test_an_approval_that_names_a_set_that_does_not_wait_approves_nothing(world, acme, waiting):
    """The tenant's key has asked for a set that only reads, under which the connection looks
    harmless.
    """
    bound_to(world, acme)("PATCH", path_of(waiting), {"permission_set": "inventory"})
    assert world.admin("GET", path_of(waiting))["sets_to_approve"] == [WRITES]
    named = {"permission_set": "inventory"}
    refused = world.admin.refused(
        "POST", path_of(waiting, "/approve"), named, expect=409, code="conflict"
    )
    assert WRITES in refused["detail"]
    world.admin.refused(
        "POST", path_of(waiting, "/credentials"), expect=409, code="connection_not_verified"
    )
    approved = world.admin("POST", path_of(waiting, "/approve"), {"permission_set": WRITES})
    assert approved["status"] == "verified"
    assert approved["approved"] == WRITES
    assert approved["sets_to_approve"] == []
    assert approved["permission_set"] == WRITES
    assert approved["wanted_permission_set"] == "inventory"


def test_the_answer_and_the_audit_log_say_which_permission_set_was_approved(world, acme):
    """Without a name it is the one that waits by then."""
    made = connect(world, acme, bound_to(world, acme), permission_set="inventory")
    bound_to(world, acme)("PATCH", path_of(made), {"permission_set": WRITES})
    assert world.admin("POST", path_of(made, "/approve"))["approved"] == WRITES
    [event] = world.audit(connection_id=made["id"], action="connection.approved")
    before = {"permission_set": "inventory", "wanted_permission_set": WRITES, "was": "verified"}
    assert event["details"] == before | {"status": "verified", "version": 2, "approved": WRITES}


def test_asking_for_the_same_permission_set_again_is_no_event(world, acme, waiting):
    own = bound_to(world, acme)
    action = "connection.permission_set_asked"
    for api, permission_set, events in (
        (own, WRITES, 0),
        (world.admin, WRITES, 0),
        (own, "inventory", 1),
        (own, "inventory", 1),
        (own, WRITES, 2),
    ):
        api("PATCH", path_of(waiting), {"permission_set": permission_set})
        assert len(world.audit(connection_id=waiting["id"], action=action)) == events


def test_a_move_that_a_proof_completes_is_recorded_for_who_asked_for_the_proof(world, acme):
    kit, tags = world.kit(acme), [{"Key": "deputy:permission-set", "Value": f"{WRITES}@1"}]
    arn = Customer(world.aws).reading_itself(kit["role_name"], kit["trust_policy"], Tags=tags)
    made = connect(world, acme, world.admin, role_arn=arn, permission_set="inventory")
    world.admin("PATCH", path_of(made), {"permission_set": WRITES})
    bound_to(world, acme)("POST", path_of(made, "/verify"))
    [event] = world.audit(connection_id=made["id"], action="connection.permission_set_changed")
    assert event["actor"]["name"] == "a program"


def test_what_is_approved_before_it_is_proven_is_verified_by_its_proof(world, acme):
    kit = world.kit(acme)
    customer = Customer(world.aws)
    arn = f"arn:aws:iam::{customer.account}:role/{kit['role_name']}"
    made = connect(world, acme, bound_to(world, acme), role_arn=arn)
    assert approve(world, made) == ("pending", False)
    customer.role(kit["role_name"], kit["trust_policy"])
    assert verify(world, made) == "verified"


@pytest.mark.parametrize(("hours", "status"), [(23, "verified"), (25, "pending")])
def test_a_proof_counts_for_a_day_at_the_approval(world, waiting, hours, status):
    with time_machine.travel(now() + timedelta(hours=hours)):
        assert approve(world, waiting) == (status, False)
    assert verify(world, waiting) == "verified"


def test_a_proof_from_before_a_resume_does_not_count_at_the_approval(world, app, waiting):
    """The resume has committed, and its own proof is not there yet."""
    with app.extensions["deputy"].db.write(SYSTEM) as db:
        db.get_one(Connection, UUID(waiting["id"])).make_due(now(), Trigger.REGISTERED)
    assert approve(world, waiting) == ("pending", False)
    assert verify(world, waiting) == "verified"


def test_a_suspended_one_is_approved_and_stays_suspended(world, waiting):
    world.admin("POST", path_of(waiting, "/suspend"), {"reason": "wait"})
    approved = world.admin("POST", path_of(waiting, "/approve"))
    assert approved["status"] == "suspended"
    assert approved["next_proof_at"] is None
    resumed = world.admin("POST", path_of(waiting, "/resume"), {"reason": "go"})
    assert resumed["status"] == "verified"


def test_a_role_does_not_wait_if_the_vendor_made_it_or_declared_its_account_or_it_only_reads(
    world, acme
):
    own, arn = bound_to(world, acme), world.role(acme)
    for made in (
        connect(world, acme, world.admin),
        connect(world, acme, own, permission_set="inventory"),
    ):
        assert made["status"] == "verified"
        assert made["awaiting_approval"] is False
        world.admin("DELETE", path_of(made), expect=204)
    declare(world, acme, arn.split(":")[4])
    made = connect(world, acme, own, role_arn=arn)
    assert made["status"] == "verified"
    assert made["awaiting_approval"] is False
