"""Suspended, deleted, made again: nothing is issued from then on, and nothing of the old is
found by the new.
"""

import pytest

from tests.attacks.evidence import absent, issues_nothing, problem
from tests.support.cast import Customer, path_of

REASON = {"reason": "an incident"}
SHAPES = [("POST", "/credentials"), ("GET", "/container-credentials")]


@pytest.fixture
def initech(world):
    tenant = world.tenant("Initech", reference=f"initech-{absent()}")
    customer, kit = Customer(world.aws), world.kit(tenant)
    return tenant, customer, kit, world.connection(tenant, customer)


def test_after_offboarding_nothing_is_issued(world, initech):
    tenant, _, _, connection = initech
    worker = world.worker(tenant)
    callers = ((worker, 401, "unauthenticated"), (world.admin, 404, "not_found"))
    for api, *_ in callers:
        assert api("POST", path_of(connection, "/credentials"))["AccessKeyId"]
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    calls = len(world.calls_for(connection["role_arn"]))
    for api, status, code in callers:
        for shape in SHAPES:
            issues_nothing(api, connection, status, code, shape)
    for what in ("/verify", "/resume", "/suspend"):
        body = {} if what == "/verify" else REASON
        problem(world.admin.raw("POST", path_of(connection, what), body), 404, "not_found")
    assert len(world.calls_for(connection["role_arn"])) == calls
    event = world.audit(tenant_id=tenant["id"], action="tenant.deleted")[0]
    revoked = {"connections_deleted": 1, "api_keys_revoked": 1}
    who = {name: tenant[name] for name in ("name", "reference", "external_id")}
    assert event["details"] == {**who, "was": "active", "status": "deleted", **revoked}


def test_offboarding_deletes_connections_and_endpoints_as_their_own_deletions_do(
    world, initech, by_hand
):
    tenant, customer, kit, _ = initech
    refused = f"arn:aws:iam::{customer.account}:role/{kit['role_name']}-absent"
    refusing = world.connect(tenant, refused, status="pending")
    hook = {"url": "https://93.184.215.14/in", "types": ["*"], "tenant_id": tenant["id"]}
    world.admin("POST", "/v1/webhook-endpoints", hook, expect=201)
    assert by_hand.one("SELECT refuses FROM connections WHERE id = :id", id=refusing["id"])
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    rows = by_hand.rows(
        "SELECT status, refuses, deleted_by_bound, due_at, deleted_at IS NULL FROM connections"
        " WHERE tenant_id = :id",
        id=tenant["id"],
    )
    assert rows == [("deleted", False, False, None, False)] * 2
    [ended] = by_hand.rows(
        "SELECT status, disabled_because, disabled_at IS NULL, secret, old_secret"
        " FROM webhook_endpoints WHERE tenant_id = :id",
        id=tenant["id"],
    )
    assert ended == ("deleted", "asked", False, b"", None)


def test_a_deleted_tenant_is_like_one_that_never_was_and_its_successor_inherits_nothing(
    world, initech
):
    tenant, _, _, connection = initech
    old_key = world.key("tenants:read", "audit:read", "connections:read", tenant=tenant)
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    for path in ("", "/onboarding", "/connections", f"/connections/{connection['id']}"):
        gone = world.admin.raw("GET", f"/v1/tenants/{tenant['id']}{path}")
        never = world.admin.raw("GET", f"/v1/tenants/{absent()}{path}")
        assert problem(gone, 404, "not_found") == problem(never, 404, "not_found")
    for path in (
        f"/v1/tenants?reference={tenant['reference']}",
        f"/v1/connections?account_id={connection['account_id']}",
    ):
        assert world.admin("GET", path)["items"] == []
    problem(world.admin.raw("DELETE", f"/v1/tenants/{tenant['id']}"), 404, "not_found")
    body = {"name": "late", "scopes": ["audit:read"], "tenant_id": tenant["id"]}
    problem(world.admin.raw("POST", "/v1/api-keys", body), 404, "not_found")
    problem(old_key.raw("GET", "/v1/tenants"), 401, "unauthenticated")

    body = {"name": tenant["name"], "reference": tenant["reference"]}
    again = world.admin("POST", "/v1/tenants", body, expect=201)
    assert again["external_id"] != tenant["external_id"]
    new_key = world.key(
        "audit:read", "connections:read", "keys:write", "credentials:issue", tenant=again
    )
    assert new_key("GET", f"/v1/tenants/{again['id']}/connections")["items"] == []
    assert len(new_key("GET", "/v1/api-keys?limit=200")["items"]) == 1
    events = new_key("GET", "/v1/audit-events")["items"]
    assert {event["tenant_id"] for event in events} == {again["id"]}
    for tenant_id in (tenant["id"], again["id"]):
        path = f"/v1/tenants/{tenant_id}/connections/{connection['id']}/credentials"
        problem(new_key.raw("POST", path), 404, "not_found")
    assert world.connect(again, connection["role_arn"], status="pending")["verified_at"] is None
    assert world.calls_for(connection["role_arn"])[-1].external_id == again["external_id"]


def test_the_role_of_an_offboarded_tenant_is_no_other_tenants(world, initech):
    tenant, customer, kit, made = initech
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    other = world.tenant("Mallory")
    taken = world.connect(other, made["role_arn"], status="pending")
    issues_nothing(world.worker(other), taken)
    assert world.calls_for(made["role_arn"])[-1].external_id == other["external_id"]
    # Only who can change the role can give it to another tenant.
    customer.retrust(kit["role_name"], world.kit(other)["trust_policy"])
    assert world.verify(taken)["status"] == "verified"
