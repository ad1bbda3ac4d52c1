"""Every route by (no key, a key without the scope, a key of another tenant's): nothing slips in by being new."""

import re

import pytest
from flask import Flask

from app.access.callers import Scope
from tests.support.cast import Api, World
from tests.test_architecture import PUBLIC


def operations(app: Flask):
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            yield method, rule.rule, rule.endpoint


def scope_of(app: Flask, endpoint: str) -> Scope:
    return app.view_functions[endpoint]._apidoc["scope"]


def guarded(app: Flask):
    return [operation for operation in operations(app) if operation[1] not in PUBLIC]


def filled(rule: str, tenant_id: str, connection_id: str, key_id: str) -> str:
    ids = {"tenant_id": tenant_id, "connection_id": connection_id, "key_id": key_id, "link_id": key_id}
    return re.sub(r"<uuid:(\w+)>", lambda found: ids[found[1]], rule)


def test_only_the_listed_routes_are_public(app: Flask):
    public = {
        rule
        for _, rule, endpoint in operations(app)
        if "scope" not in getattr(app.view_functions[endpoint], "_apidoc", {})
    }
    assert public == PUBLIC


def test_without_a_key_every_route_is_401(world: World):
    connection = world.connection()
    anonymous = world.admin.with_key(None)
    for method, rule, _ in guarded(world.admin.app):
        path = filled(rule, connection["tenant_id"], connection["id"], connection["id"])
        anonymous.refused(method, path, {}, expect=401, code="unauthenticated")


def test_without_the_scope_every_route_is_403_even_for_what_does_not_exist(world: World):
    connection = world.connection()
    nothing = "01890000-0000-7000-8000-000000000000"
    keys: dict[Scope, Api] = {scope: world.key(*(s for s in Scope if s is not scope)) for scope in Scope}
    for method, rule, endpoint in guarded(world.admin.app):
        for ids in ((connection["tenant_id"], connection["id"], nothing), (nothing, nothing, nothing)):
            key = keys[scope_of(world.admin.app, endpoint)]
            key.refused(method, filled(rule, *ids), {}, expect=403, code="forbidden")


def test_another_tenants_things_are_as_absent_as_what_does_not_exist(world: World):
    theirs = world.connection(world.tenant("Globex"))
    their_key = world.admin(
        "POST", "/v1/api-keys", {"name": "x", "scopes": ["audit:read"], "tenant_id": theirs["tenant_id"]}, expect=201
    )
    ours = world.tenant("Acme")
    mine = world.key(*Scope, tenant=ours)
    nothing = "01890000-0000-7000-8000-000000000000"
    calls = len(world.aws.sts_calls)
    bodies = {"suspend": {"reason": "x"}, "resume": {"reason": "x"}, "connections": {"role_arn": theirs["role_arn"]}}
    for method, rule, _ in guarded(world.admin.app):
        if "<uuid:" not in rule:
            continue
        body = bodies.get(rule.rsplit("/", 1)[1], {})
        answers = [
            mine.refused(method, filled(rule, *ids), body, expect=404, code="not_found")
            for ids in (
                (theirs["tenant_id"], theirs["id"], their_key["id"]),
                (nothing, nothing, nothing),
                (ours["id"], theirs["id"], nothing),  # its own tenant in the path, another's connection
            )
            if not (
                rule.endswith(
                    (
                        "<uuid:tenant_id>",
                        "/suspend",
                        "/resume",
                        "/onboarding",
                        "/onboarding-links",
                        "/connections",
                        "/summary",
                    )
                )
                and "connection_id" not in rule
                and ids[0] == ours["id"]
            )
        ]
        for answer in answers:
            answer.pop("request_id")
        assert all(answer == answers[0] for answer in answers), rule
    assert len(world.aws.sts_calls) == calls
    assert world.admin("GET", f"/v1/tenants/{theirs['tenant_id']}/connections/{theirs['id']}") == theirs


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/tenants"), ("GET", "/v1/connections")])
def test_a_bound_key_on_a_route_across_tenants_is_403(world: World, method, path):
    bound = world.key(*Scope, tenant=world.tenant())
    options = {"body": {"name": "x"}} if method == "POST" else {}
    bound.refused(method, path, expect=403, code="forbidden", **options)


def test_a_method_that_is_not_there_is_405_and_says_which_are(world: World):
    for path, allowed in (("/v1/tenants", "GET, HEAD, POST"), ("/healthz", "GET, HEAD")):
        for method in ("PUT", "OPTIONS", "TRACE", "PATCH"):
            response = world.admin.raw(method, path)
            assert response.status_code == 405, (method, path)
            assert response.get_json()["code"] == "method_not_allowed"
            assert response.headers["Allow"] == allowed


def test_an_unknown_path_is_404_with_or_without_a_key(world: World):
    for api in (world.admin, world.admin.with_key(None)):
        for path in ("/", "/v1", "/v2/tenants", "/v1/tenants/", "/v1/tenants/1", "/v1/tenants/x/connections"):
            api.refused("GET", path, expect=404, code="not_found")
