"""What a suspension shows: on the thing itself, and a tenant's on its connections too."""

from datetime import datetime

from app.clock import now
from tests.attacks.routes import OF_A_TENANT
from tests.support.cast import Customer, path_of, without_external_id


def part(shown, *names):
    return tuple(shown[name] for name in names)


def views(world, connection):
    """The same connection, as a list of its tenant's, the list of all, and by itself."""
    tenant = f"/v1/tenants/{connection['tenant_id']}"
    lists = (f"{tenant}/connections", f"/v1/connections?account_id={connection['account_id']}")
    shown = [world.admin("GET", path_of(connection))]
    for path in lists:
        items = world.admin("GET", path)["items"]
        shown += [item for item in items if item["id"] == connection["id"]]
    assert len(shown) == 3
    return shown


def test_a_suspended_tenant_shows_on_its_connections_which_issue_nothing_and_keep_their_status(
    world,
):
    tenant = world.tenant()
    connection, path = world.connection(tenant), f"/v1/tenants/{tenant['id']}"
    assert connection["tenant_reference"] is None
    world.admin("PATCH", path, {"reference": tenant["id"], "name": "Renamed"})
    world.admin.refused("POST", f"{path}/resume", {"reason": "x"}, expect=409, code="conflict")
    shown = world.admin("POST", f"{path}/suspend", {"reason": "Ticket 4711"})
    assert shown["status"] == "suspended"
    for one in (shown, world.admin("GET", path)):
        assert part(one["suspended"], "by", "reason") == ("api_key", "Ticket 4711")
        assert abs((now() - datetime.fromisoformat(one["suspended"]["at"])).total_seconds()) < 60
    world.admin.refused("POST", f"{path}/suspend", {"reason": "x"}, expect=409, code="conflict")
    world.admin.refused("POST", path_of(connection, "/credentials"), expect=409, code="suspended")
    for one in views(world, connection):
        assert part(one, "status", "issues", "suspended") == ("verified", False, None)
        assert "tenant is suspended" in one["why"]
        assert part(one, "tenant_name", "tenant_reference") == ("Renamed", tenant["id"])
    resumed = world.admin("POST", f"{path}/resume", {"reason": "done"})
    assert part(resumed, "status", "suspended") == ("active", None)
    for one in views(world, connection):
        assert part(one, "issues", "why") == (True, None)
    world.admin("POST", path_of(connection, "/credentials"))
    for action, reason in (("tenant.suspended", "Ticket 4711"), ("tenant.resumed", "done")):
        [event] = world.audit(tenant_id=tenant["id"], action=action)
        assert event["outcome"] == "ok"
        assert event["details"]["reason"] == reason


OF_CONNECTION = {"/verify", "/diagnose", "/resume", "/approve", "/credentials"}
GIVES = OF_CONNECTION | {"/connections", "/onboarding-links", "/{connection_id}"}
LIFTS_OR_ADDS = ("/v1/tenants/{tenant_id}/resume", "/suspend")


def test_while_a_tenant_is_suspended_nothing_gives_access_to_its_roles_or_prepares_that(world):
    tenant = world.tenant()
    connection = world.awaiting_approval(tenant)
    world.admin("POST", f"/v1/tenants/{tenant['id']}/suspend", {"reason": "In doubt"})
    refused, calls = set(), len(world.aws.sts_calls)
    container = path_of(connection, "/container-credentials")
    world.admin.refused("GET", container, expect=409, code="suspended")
    for route in OF_A_TENANT:
        if route.method in {"POST", "PATCH"} and not route.path.endswith(LIFTS_OR_ADDS):
            path = route.at(tenant_id=tenant["id"], connection_id=connection["id"])
            answer = world.admin.raw(route.method, path, route.body)
            if answer.headers.get("X-Deputy-Code") == "suspended":
                refused.add(
                    f"/{path.rpartition('/')[2]}".replace(connection["id"], "{connection_id}")
                )
    assert refused == GIVES
    assert len(world.aws.sts_calls) == calls
    connection = world.admin("GET", path_of(connection))
    assert part(connection, "wanted_permission_set", "awaiting_approval") == (None, True)


def test_a_suspended_connection_says_since_when_by_whom_and_why(world):
    connection = world.connection()
    for shown in views(world, connection):
        assert part(shown, "issues", "why", "suspended") == (True, None, None)
    shown = world.admin("POST", path_of(connection, "/suspend"), {"reason": "In doubt"})
    for one in [shown, *views(world, connection)]:
        assert part(one["suspended"], "by", "reason") == ("api_key", "In doubt")
        assert part(one, "status", "issues") == ("suspended", False)
        assert "suspended" in one["why"]
        assert one["suspended"]["at"] == shown["suspended"]["at"]
    resumed = world.admin("POST", path_of(connection, "/resume"), {"reason": "done"})
    assert part(resumed, "status", "issues", "suspended") == ("verified", True, None)


def test_every_status_that_issues_nothing_says_why(world):
    tenant, customer = world.tenant(), Customer(world.aws)
    kit = world.kit(tenant)
    body = {"account_id": customer.account}
    made = world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
    shown = [made]
    customer.role(kit["role_name"], without_external_id(kit["trust_policy"]))
    shown.append(world.admin("POST", path_of(made, "/verify")))
    customer.remove_role(kit["role_name"])
    shown.append(world.admin("POST", path_of(made, "/verify")))
    words = (("pending", "proven"), ("insecure", "any External ID"), ("broken", "refuses"))
    for connection, (status, word) in zip(shown, words, strict=True):
        assert part(connection, "status", "issues") == (status, False)
        assert word in connection["why"]
