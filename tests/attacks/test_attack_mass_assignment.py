"""Nothing is written but what a route documents: state, owner, ids, versions and proofs are the
server's.
"""

from tests.attacks.evidence import case, problem, refusals, unchanged, untouched
from tests.attacks.routes import ROUTES, WITH_BODY, Route
from tests.support.cast import path_of

EXTRA = {
    "id": "00000000-0000-7000-8000-000000000000",
    "status": "verified",
    "verified_at": "2020-01-01T00:00:00Z",
    "verification": {"verdict": "proven", "checks": []},
    "proof": {"verdict": "proven"},
    "role_unique_id": "AROAXXXXXXXXXXXXXXXX",
    "version": 99,
    "external_id": "dpy-x",
    "external_id_id": "00000000-0000-7000-8000-000000000000",
    "created_at": "2020-01-01T00:00:00Z",
    "deleted_at": None,
    "due_at": "2999-01-01T00:00:00Z",
    "revoked_at": None,
    "actor": {"kind": "operator"},
    "__class__": "Tenant",
    "tenant.status": "active",
}


def fields_that_are_not_there(route, theirs):
    """One route has an account_id, in the place of a role_arn; those of an API key and of an
    endpoint name a tenant.
    """
    account, fields = {"account_id": "123456789012"}, EXTRA | theirs
    if route.path in {"/v1/api-keys", "/v1/webhook-endpoints"}:
        del fields["tenant_id"]
    return [fields, account] if route.path.endswith("/connections") else [fields | account]


def test_no_route_takes_a_field_that_it_does_not_have(scene):
    """Nor another tenant in the body."""
    theirs = {"tenant_id": scene.globex["id"], "connection_id": scene.theirs["id"]}
    responses = []
    with unchanged(scene.world, scene.ours), untouched(scene.world, scene.theirs):
        for route in WITH_BODY:
            for fields in fields_that_are_not_there(route, theirs):
                with case(str(route), first=next(iter(fields))):
                    response = route.send(
                        scene.admin, route.at(**scene.ids), body=route.body | fields
                    )
                    errors = problem(response, 422, "validation_failed")["errors"]
                    assert set(errors) == fields.keys()
                    responses.append(response)
    for event in refusals(scene.world, *responses):
        assert event["tenant_id"] is None


def test_only_a_proof_makes_a_connection_verified(world):
    made = world.connect(
        world.tenant(), "arn:aws:iam::210987654321:role/deputy-mass", status="pending"
    )
    one = path_of(made)
    for method in ("PUT", "POST"):
        problem(world.admin.raw(method, one, {"status": "verified"}), 405, "method_not_allowed")
    for body in ({"status": "verified"}, {"permission_set": "inventory", "status": "verified"}):
        problem(world.admin.raw("PATCH", one, body), 422, "validation_failed")
    assert world.admin("PATCH", one, {"permission_set": "bucket-sync"})["status"] == "pending"
    world.admin("POST", f"{one}/suspend", {"reason": "a test"})
    assert world.admin("POST", f"{one}/resume", {"reason": "a test"})["status"] == "pending"
    assert world.admin("POST", f"{one}/verify")["status"] == "pending"


def test_the_method_is_the_method(scene):
    headers = dict.fromkeys(["X-HTTP-Method-Override", "X-Method-Override"], "DELETE")
    with unchanged(scene.world, scene.ours):
        for path in (path_of(scene.ours), f"/v1/tenants/{scene.acme['id']}"):
            scene.admin("GET", f"{path}?_method=DELETE", headers=headers)
        for path in ("/healthz", *sorted({route.path for route in ROUTES})):
            there = {route.method for route in ROUTES if route.path == path} or {"GET"}
            allowed = there | ({"HEAD"} if "GET" in there else set())
            address = Route("", path, "").at(**scene.ids)
            odd = {"TRACE", "CONNECT", "OPTIONS", "FOO"} if path == "/healthz" else {"OPTIONS"}
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE", *odd} - there:
                with case(path, method=method):
                    response = scene.admin.raw(method, address)
                    problem(response, 405, "method_not_allowed")
                    assert set(response.headers["Allow"].split(", ")) == allowed
