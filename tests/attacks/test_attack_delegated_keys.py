"""A stolen sign-up key: what it gives, to which tenants, and what it learns of others."""

import pytest

from app.identity.scopes import Scope
from app.limits import limits
from tests.api.test_delegated_keys import KEYS, WORKER, SignUp
from tests.attacks.evidence import absent, case, problem, refusal, untouched
from tests.attacks.routes import ROUTES
from tests.conftest import OPERATOR


@pytest.fixture
def stolen(scene) -> SignUp:
    return SignUp(scene.world)


def test_a_delegating_key_gives_nothing_but_what_it_may_give_not_even_its_own_scopes(stolen):
    tenant = stolen.tenant()
    for scope in sorted(set(Scope) - {"credentials:issue"}):
        gives = {"may_give": ["credentials:issue"]} if scope.startswith("keys:") else {}
        for scopes in ([scope], ["credentials:issue", scope]):
            for more in ({}, gives) if gives else ({},):
                with case(scopes=scopes, more=more):
                    body = {"name": "stronger", "scopes": scopes, "tenant_id": tenant["id"]} | more
                    problem(stolen.api.raw("POST", KEYS, body), 403, "forbidden")
    assert stolen.listed() == []


def test_a_delegating_key_makes_none_for_all_tenants(stolen):
    for tenant_id in ({}, {"tenant_id": None}):
        problem(stolen.api.raw("POST", KEYS, WORKER | tenant_id), 403, "forbidden")


def tenants_of_others(scene, stolen):
    """Tenants that the key did not make, by why."""
    world, sibling = scene.world, SignUp(scene.world)
    gone = stolen.tenant(reference=absent())
    world.admin("DELETE", f"/v1/tenants/{gone['id']}", expect=204)
    again = {"name": "Acme", "reference": gone["reference"]}
    services = world.services
    return {
        "absent": absent(),
        "the vendor's": scene.acme["id"],
        "the command line's": str(services.tenants.create(OPERATOR, name="Acme").id),
        "another sign-up key's, with the same maker": sibling.tenant()["id"],
        "its successor's": stolen.replace().tenant()["id"],
        "its own, deleted": gone["id"],
        "with its deleted tenant's reference": world.admin(
            "POST", "/v1/tenants", again, expect=201
        )["id"],
    }


def test_a_tenant_that_a_delegating_key_did_not_make_is_like_none_at_all(scene, stolen):
    answers, tenants = [], tenants_of_others(scene, stolen)
    key = scene.admin("POST", KEYS, WORKER | {"tenant_id": scene.acme["id"]}, expect=201)
    with untouched(scene.world, scene.ours, scene.theirs):
        for why, tenant_id in tenants.items():
            response = stolen.api.raw("POST", KEYS, WORKER | {"tenant_id": tenant_id})
            assert (why, response.status_code) == (why, 404)
            answers.append(problem(response, 404, "not_found"))
            assert refusal(scene.world, response)["tenant_id"] is None
        for method in ("GET", "DELETE"):
            response = stolen.api.raw(method, f"{KEYS}/{key['id']}")
            answers.append(problem(response, 404, "not_found"))
    assert answers == [answers[0]] * len(answers)
    assert stolen.listed() == []


_LINKS = "/v1/tenants/{tenant_id}/onboarding-links"
SIGNS_UP = {
    "POST /v1/tenants": 201,
    "GET /v1/tenants/{tenant_id}": 200,
    "GET /v1/tenants/{tenant_id}/onboarding": 200,
    f"POST {_LINKS}": 201,
    f"GET {_LINKS}": 200,
    f"GET {_LINKS}/{{link_id}}": 200,
    f"DELETE {_LINKS}/{{link_id}}": 204,
    "GET /v1/tenants/{tenant_id}/connections": 200,
    "GET /v1/tenants/{tenant_id}/connections/summary": 200,
    "GET /v1/tenants/{tenant_id}/connections/{connection_id}": 200,
}


def test_in_no_route_does_a_sign_up_key_do_more_than_sign_up(scene, stolen):
    """It reaches its own tenants alone, and what keys:delegate opens shows it no other's."""
    tenant = stolen.tenant()
    connection = scene.world.connection(tenant)
    link = stolen.api("POST", _LINKS.format(tenant_id=tenant["id"]), {}, expect=201)
    own = {"tenant_id": tenant["id"], "connection_id": connection["id"], "link_id": link["id"]}
    ours = {"tenant_id": scene.acme["id"], "connection_id": scene.ours["id"]}
    nowhere = {"tenant_id": absent(), "connection_id": absent()}
    with untouched(scene.world, scene.ours):
        for route in ROUTES:
            with case(str(route)):
                answer = route.send(stolen.api, route.at(**own))
                if opens := SIGNS_UP.get(str(route)):
                    assert answer.status_code == opens, answer.text
                    if "{tenant_id}" in route.path:
                        foreign = route.send(stolen.api, route.at(**ours))
                        nothing = route.send(stolen.api, route.at(**nowhere))
                        same = problem(nothing, 404, "not_found")
                        assert problem(foreign, 404, "not_found") == same
                elif not route.path.startswith(KEYS) or route.path.endswith("/replace"):
                    problem(answer, 403, "forbidden")
    assert stolen.listed() == []


def test_a_successor_reaches_what_its_predecessor_created_and_not_the_reverse(stolen):
    before, successor = stolen.tenant(), stolen.replace()
    after = successor.tenant()
    for tenant in (before, after):
        successor.api("GET", f"/v1/tenants/{tenant['id']}")
    stolen.api("GET", f"/v1/tenants/{before['id']}")
    stolen.api.refused("GET", f"/v1/tenants/{after['id']}", expect=404, code="not_found")


def test_a_scope_for_all_tenants_is_not_narrowed_by_tenants_create(scene):
    reader = scene.world.key("tenants:create", "tenants:read")
    assert reader("GET", f"/v1/tenants/{scene.acme['id']}")["id"] == scene.acme["id"]
    reader.refused(
        "GET", f"/v1/tenants/{scene.acme['id']}/onboarding", expect=404, code="not_found"
    )


def test_a_full_tenant_of_others_is_like_none_at_all(scene, stolen, monkeypatch):
    services = scene.world.services
    monkeypatch.setattr(services.api_keys, "_limit", limits.KEYS._replace(most=0))
    own = WORKER | {"tenant_id": stolen.tenant()["id"]}
    stolen.api.refused("POST", KEYS, own, expect=429, code="rate_limited")
    other = WORKER | {"tenant_id": scene.acme["id"]}
    stolen.api.refused("POST", KEYS, other, expect=404, code="not_found")


def test_a_stronger_key_of_its_own_tenant_is_like_none_at_all(scene, stolen):
    tenant = stolen.tenant()
    for scopes in (["connections:read"], ["credentials:issue", "connections:read"], ["keys:write"]):
        body = {"name": "stronger", "scopes": scopes, "tenant_id": tenant["id"]}
        made = scene.admin("POST", KEYS, body, expect=201)
        for method in ("GET", "DELETE"):
            problem(stolen.api.raw(method, f"{KEYS}/{made['id']}"), 404, "not_found")
    assert stolen.listed() == []


def test_who_made_a_tenant_and_when_is_not_chosen(scene, stolen):
    for field, value in (("made_by", stolen.shown["id"]), ("created_at", "2099-01-01T00:00:00Z")):
        body = {"name": scene.acme["name"], field: value}
        for response in (
            stolen.api.raw("POST", "/v1/tenants", body),
            scene.world.admin.raw("PATCH", f"/v1/tenants/{scene.acme['id']}", body),
        ):
            assert field in problem(response, 422, "validation_failed")["errors"]


def test_a_delegated_key_is_no_wider_lives_no_longer_and_makes_nothing_more(scene):
    stolen = SignUp(scene.world, permission_sets=["inventory"], expires_at="2099-01-01T00:00:00Z")
    tenant = stolen.tenant()
    key = stolen.worker(tenant)
    assert (key["permission_sets"], key["expires_at"][:4]) == (["inventory"], "2099")
    for field, value, status in (
        ("permission_sets", ["bucket-sync"], 403),
        ("expires_at", "2099-01-02T00:00:00Z", 422),
    ):
        body = WORKER | {"tenant_id": tenant["id"], field: value}
        assert stolen.api.raw("POST", KEYS, body).status_code == status, field
    worker = stolen.api.with_key(key["key"])
    problem(worker.raw("POST", KEYS, WORKER), 403, "forbidden")
    problem(worker.raw("GET", KEYS), 403, "forbidden")
