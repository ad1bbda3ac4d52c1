"""Suspended, deleted, made again: nothing is issued from then on, and nothing of the old is
found by the new.
"""

import pytest

from tests.attacks.evidence import absent, on_postgresql, problem, refusal
from tests.support.cast import Customer, World, path_of

pytestmark = on_postgresql  # nothing here depends on the database
REASON = {"reason": "an incident"}
SHAPES = [("POST", "/credentials"), ("GET", "/container-credentials")]


@pytest.fixture
def initech(world: World):
    reference = f"initech-{absent()}"
    tenant = world.admin(
        "POST", "/v1/tenants", {"name": "Initech", "reference": reference}, expect=201
    )
    customer, kit = Customer(world.aws), world.kit(tenant)
    return tenant, customer, kit, world.connection(tenant, customer)


def test_after_offboarding_nothing_is_issued(world: World, initech):
    tenant, _, _, connection = initech
    worker = world.worker(tenant)
    callers = ((worker, 401, "unauthenticated"), (world.admin, 404, "not_found"))
    for api, *_ in callers:
        assert api("POST", path_of(connection, "/credentials"))["AccessKeyId"]
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    calls = len(world.calls_for(connection["role_arn"]))
    for api, status, code in callers:
        for method, what in SHAPES:
            problem(api.raw(method, path_of(connection, what)), status, code)
    for what in ("/verify", "/resume", "/suspend"):
        body = {} if what == "/verify" else REASON
        problem(world.admin.raw("POST", path_of(connection, what), body), 404, "not_found")
    assert len(world.calls_for(connection["role_arn"])) == calls
    event = world.audit(tenant_id=tenant["id"], action="tenant.deleted")[0]
    assert event["details"] == {"was": "active", "connections_deleted": 1, "api_keys_revoked": 1}


def test_a_deleted_tenant_is_like_one_that_never_was_and_its_successor_inherits_nothing(
    world: World, initech
):
    tenant, _, _, connection = initech
    old_key = world.key("tenants:read", "audit:read", "connections:read", tenant=tenant)
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    for path in ("", "/onboarding", "/connections", f"/connections/{connection['id']}"):
        gone = world.admin.raw("GET", f"/v1/tenants/{tenant['id']}{path}")
        never = world.admin.raw("GET", f"/v1/tenants/{absent()}{path}")
        assert problem(gone, 404, "not_found") == problem(never, 404, "not_found")
    assert tenant["id"] not in {
        shown["id"] for shown in world.admin("GET", "/v1/tenants?limit=200")["items"]
    }
    assert world.admin("GET", f"/v1/tenants?reference={tenant['reference']}")["items"] == []
    assert (
        world.admin("GET", f"/v1/connections?account_id={connection['account_id']}")["items"] == []
    )
    problem(world.admin.raw("DELETE", f"/v1/tenants/{tenant['id']}"), 404, "not_found")
    body = {"name": "late", "scopes": ["audit:read"], "tenant_id": tenant["id"]}
    problem(world.admin.raw("POST", "/v1/api-keys", body), 404, "not_found")
    problem(old_key.raw("GET", "/v1/tenants"), 401, "unauthenticated")

    again = world.admin(
        "POST",
        "/v1/tenants",
        {"name": tenant["name"], "reference": tenant["reference"]},
        expect=201,
    )
    new_key = world.key(
        "audit:read", "connections:read", "keys:write", "credentials:issue", tenant=again
    )
    assert new_key("GET", f"/v1/tenants/{again['id']}/connections")["items"] == []
    assert len(new_key("GET", "/v1/api-keys?limit=200")["items"]) == 1
    assert {event["tenant_id"] for event in new_key("GET", "/v1/audit-events")["items"]} == {
        again["id"]
    }
    for tenant_id in (tenant["id"], again["id"]):
        path = f"/v1/tenants/{tenant_id}/connections/{connection['id']}/credentials"
        problem(new_key.raw("POST", path), 404, "not_found")


def test_the_role_of_an_offboarded_tenant_is_no_other_tenants(world: World, initech):
    tenant, customer, kit, made = initech
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    other = world.tenant("Mallory")
    taken = world.connect(other, made["role_arn"], status="pending")
    problem(
        world.worker(other).raw("POST", path_of(taken, "/credentials")),
        409,
        "connection_not_verified",
    )
    assert world.calls_for(made["role_arn"])[-1].external_id == other["external_id"]
    # Only who can change the role can give it to another tenant.
    customer.retrust(kit["role_name"], world.kit(other)["trust_policy"])
    assert world.admin("POST", path_of(taken, "/verify"))["status"] == "verified"


def test_a_deleted_connection_does_not_come_back_by_itself(world: World, initech):
    tenant, _, _, made = initech
    world.admin("DELETE", path_of(made), expect=204)
    for method, what, body in (
        ("POST", "/verify", {}),
        ("POST", "/resume", REASON),
        ("DELETE", "", None),
    ):
        options = {} if body is None else {"body": body}
        problem(world.admin.raw(method, path_of(made, what), **options), 404, "not_found")
    for method, what in SHAPES:
        problem(world.admin.raw(method, path_of(made, what)), 404, "not_found")
    again = world.connect(tenant, made["role_arn"])
    assert again["id"] != made["id"]
    problem(world.admin.raw("POST", path_of(made, "/credentials")), 404, "not_found")


def test_while_its_tenant_is_suspended_a_connection_gives_and_proves_nothing(world: World, initech):
    tenant, _, _, made = initech
    worker = world.worker(tenant)
    world.admin("POST", f"/v1/tenants/{tenant['id']}/suspend", REASON)
    calls = len(world.calls_for(made["role_arn"]))
    for method, what in SHAPES:
        response = worker.raw(method, path_of(made, what))
        problem(response, 409, "suspended")
        event = refusal(world, response)
        assert (event["tenant_id"], event["connection_id"]) == (tenant["id"], made["id"])
    problem(world.admin.raw("POST", path_of(made, "/verify")), 409, "suspended")
    path = f"/v1/tenants/{tenant['id']}/connections"
    for arn in (made["role_arn"], "arn:aws:iam::210987654321:role/deputy-x"):
        problem(world.admin.raw("POST", path, {"role_arn": arn}), 409, "suspended")
    world.admin("POST", path_of(made, "/suspend"), REASON)
    problem(world.admin.raw("POST", path_of(made, "/resume"), REASON), 409, "suspended")
    assert world.admin("GET", path_of(made))["status"] == "suspended"
    assert len(world.calls_for(made["role_arn"])) == calls
    world.admin("POST", f"/v1/tenants/{tenant['id']}/resume", REASON)
    problem(worker.raw("POST", path_of(made, "/credentials")), 409, "suspended")


def test_a_resumed_connection_is_proven_before_it_issues(world: World, initech):
    _, customer, kit, made = initech
    world.admin("POST", path_of(made, "/suspend"), REASON)
    customer.remove_role(kit["role_name"])
    assert world.admin("POST", path_of(made, "/resume"), REASON)["status"] == "pending"
    problem(world.admin.raw("POST", path_of(made, "/credentials")), 409, "connection_not_verified")
