"""Nothing is written but what a route documents: state, owner, ids, versions and proofs are the server's."""

import pytest

from tests.attacks.evidence import Scene, on_sqlite, problem, refusal, unchanged, untouched
from tests.attacks.routes import ROUTES, WITH_BODY, Route
from tests.support.cast import World, path_of

pytestmark = on_sqlite  # all of it is refused before the database is asked

EXTRA = {
    "id": "00000000-0000-7000-8000-000000000000",
    "status": "verified",
    "state": "verified",
    "verified": True,
    "verified_at": "2020-01-01T00:00:00Z",
    "verification": {"verdict": "proven", "checks": []},
    "proof": {"verdict": "proven"},
    "proof_id": "00000000-0000-7000-8000-000000000000",
    "role_unique_id": "AROAXXXXXXXXXXXXXXXX",
    "version": 99,
    "external_id": "dpy-x",
    "external_id_id": "00000000-0000-7000-8000-000000000000",
    "created_at": "2020-01-01T00:00:00Z",
    "deleted_at": None,
    "due_at": "2999-01-01T00:00:00Z",
    "revoked_at": None,
    "current": {},
    "connections": [],
    "actor": {"kind": "operator"},
    "request_id": "mine",
    "__class__": "Tenant",
    "constructor": {"prototype": {}},
    "tenant.status": "active",
    "force": True,
}


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_no_route_takes_a_field_that_it_does_not_have(scene: Scene, route: Route):
    path = route.at(tenant_id=scene.acme["id"], connection_id=scene.ours["id"])
    with unchanged(scene.world, scene.ours):
        half = len(EXTRA) // 2  # errors name 20 fields at most
        # One route has an account_id, in the place of a role_arn.
        for names in ([*EXTRA][:half], [*EXTRA][half:], ["account_id"]):
            fields = {name: EXTRA.get(name, "123456789012") for name in names}
            response = scene.world.admin.raw(route.method, path, {**route.body, **fields})
            assert set(problem(response, 422, "validation_failed")["errors"]) == fields.keys()


@pytest.mark.parametrize("route", [r for r in WITH_BODY if "api-keys" not in r.path], ids=str)
def test_no_route_takes_another_tenant_from_the_body(scene: Scene, route: Route):
    ids = {"tenant_id": scene.acme["id"], "connection_id": scene.ours["id"]}
    with unchanged(scene.world, scene.ours), untouched(scene.world, scene.theirs):
        body = {**route.body, "tenant_id": scene.globex["id"], "connection_id": scene.theirs["id"]}
        response = scene.world.admin.raw(route.method, route.at(**ids), body)
        problem(response, 422, "validation_failed")
    assert refusal(scene.world, response)["tenant_id"] is None


def test_only_a_proof_makes_a_connection_verified(world: World):
    made = world.connect(world.tenant(), "arn:aws:iam::210987654321:role/deputy-mass", status="pending")
    one = path_of(made)
    for method in ("PUT", "POST"):
        problem(world.admin.raw(method, one, {"status": "verified"}), 405, "method_not_allowed")
    for body in ({"status": "verified"}, {"permission_set": "inventory", "status": "verified"}):
        problem(world.admin.raw("PATCH", one, body), 422, "validation_failed")
    assert world.admin("PATCH", one, {"permission_set": "bucket-sync"})["status"] == "pending"
    world.admin("POST", f"{one}/suspend", {"reason": "a test"})
    assert world.admin("POST", f"{one}/resume", {"reason": "a test"})["status"] == "pending"
    assert world.admin("POST", f"{one}/verify")["status"] == "pending"


def test_a_tenants_status_changes_only_by_its_own_routes(world: World):
    tenant = world.tenant()
    path = f"/v1/tenants/{tenant['id']}"
    world.admin("POST", f"{path}/suspend", {"reason": "a test"})
    for body in ({"status": "active"}, {"name": "x", "status": "active"}):
        problem(world.admin.raw("PATCH", path, body), 422, "validation_failed")
    assert world.admin("GET", path)["status"] == "suspended"


@pytest.mark.parametrize("override", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_the_method_is_the_method(scene: Scene, override: str):
    with unchanged(scene.world, scene.ours):
        for path in (path_of(scene.ours), f"/v1/tenants/{scene.acme['id']}"):
            headers = {override: "DELETE"}
            assert scene.world.admin.raw("GET", path, headers=headers).status_code == 200
            assert scene.world.admin.raw("GET", f"{path}?_method=DELETE", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", *sorted({route.path for route in ROUTES})])
def test_methods_that_are_not_there_are_refused_and_the_answer_names_the_others(scene: Scene, path: str):
    there = {route.method for route in ROUTES if route.path == path} or {"GET"}
    allowed = there | ({"HEAD"} if "GET" in there else set())
    nothing = scene.acme["id"]
    ids = {"tenant_id": nothing, "connection_id": scene.ours["id"], "key_id": nothing, "link_id": nothing, "name": "x"}
    with unchanged(scene.world, scene.ours):
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "OPTIONS", "FOO"} - there:
            response = scene.world.admin.raw(method, path.format(**ids))
            problem(response, 405, "method_not_allowed")
            assert set(response.headers["Allow"].split(", ")) == allowed


def test_a_request_id_is_never_the_clients(scene: Scene):
    headers = {"X-Request-Id": "mine", "X-Correlation-Id": "mine", "Traceparent": "mine"}
    response = scene.mallory.raw("GET", f"/v1/tenants/{scene.globex['id']}", headers=headers)
    problem(response, 404, "not_found")
    assert response.headers["X-Request-Id"] != "mine"
    assert refusal(scene.world, response)["request_id"] == response.headers["X-Request-Id"]
