"""Every route without a key; tests/attacks/ tries each with a wrong scope, and with another tenant's ids."""

import re

from flask import Flask

from tests.support.cast import World
from tests.test_architecture import PUBLIC


def operations(app: Flask):
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            yield method, rule.rule, rule.endpoint


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
