"""Mallory, with every right in Acme, goes for what is Globex's: by id, in every route, on every kind of path."""

import pytest

from tests.attacks.evidence import Scene, absent, on_sqlite, problem, refusal, untouched
from tests.attacks.routes import OF_A_CONNECTION, OF_A_TENANT, ROUTES, Route, routes_of
from tests.support.cast import Customer, path_of, without_external_id


def test_every_route_is_attacked_here(app):
    assert {str(route) for route in ROUTES} == routes_of(app)


def mischief(scene: Scene, route: Route, tenant_id: str, connection_id: str):
    body = route.body
    if body and "role_arn" in body:
        body = {"role_arn": scene.theirs["role_arn"]}
    options = {} if body is None else {"body": body}
    return scene.mallory.raw(route.method, route.at(tenant_id=tenant_id, connection_id=connection_id), **options)


@on_sqlite
@pytest.mark.parametrize("route", OF_A_TENANT, ids=str)
def test_another_tenants_thing_answers_like_one_that_does_not_exist(scene: Scene, route: Route):
    with untouched(scene.world, scene.theirs, scene.ours):
        foreign = mischief(scene, route, scene.globex["id"], scene.theirs["id"])
        nothing = mischief(scene, route, absent(), absent())
    assert problem(foreign, 404, "not_found") == problem(nothing, 404, "not_found")
    assert not scene.tells_of_globex(foreign.text)
    headers = [
        {name: value for name, value in response.headers if name not in {"X-Request-Id", "Date"}}
        for response in (foreign, nothing)
    ]
    assert headers[0] == headers[1]
    for response in (foreign, nothing):
        event = refusal(scene.world, response)
        assert event["tenant_id"] is None
        assert event["connection_id"] is None
        assert event["details"]["code"] == "not_found"
        assert event["actor"]["kind"] == "api_key"


@on_sqlite
@pytest.mark.parametrize("route", OF_A_CONNECTION, ids=str)
@pytest.mark.parametrize("mixed", ["our tenant, their connection", "their tenant, our connection"])
def test_path_and_row_must_agree(scene: Scene, route: Route, mixed: str):
    ours_first = mixed.startswith("our")
    tenant = scene.acme if ours_first else scene.globex
    connection = scene.theirs if ours_first else scene.ours
    with untouched(scene.world, scene.theirs):
        response = mischief(scene, route, tenant["id"], connection["id"])
        nothing = mischief(scene, route, tenant["id"] if ours_first else absent(), absent())
    assert problem(response, 404, "not_found") == problem(nothing, 404, "not_found")
    event = refusal(scene.world, response)
    assert (event["tenant_id"], event["connection_id"]) == (None, None)


@on_sqlite
@pytest.mark.parametrize("route", OF_A_CONNECTION, ids=str)
def test_path_and_row_must_agree_for_the_vendors_own_key_too(scene: Scene, route: Route):
    with untouched(scene.world, scene.theirs, scene.ours):
        response = scene.world.admin.raw(
            route.method,
            route.at(tenant_id=scene.acme["id"], connection_id=scene.theirs["id"]),
            **({} if route.body is None else {"body": route.body}),
        )
    problem(response, 404, "not_found")
    assert refusal(scene.world, response)["tenant_id"] is None


@pytest.mark.parametrize("by", ["role_arn", "account_id", "external_id"])
@pytest.mark.parametrize("what", ["/credentials", "/container-credentials"])
def test_a_connection_has_no_other_name_than_its_id(scene: Scene, by: str, what: str):
    method = "POST" if what == "/credentials" else "GET"
    with untouched(scene.world, scene.theirs):
        for name in (scene.theirs[by], scene.theirs[by].rpartition("/")[2]):
            response = scene.mallory.raw(method, f"/v1/tenants/{scene.acme['id']}/connections/{name}{what}")
            problem(response, 404, "not_found")
            response = scene.mallory.raw(method, f"/v1/tenants/{name}/connections/{scene.theirs['id']}{what}")
            problem(response, 404, "not_found")


@on_sqlite
@pytest.mark.parametrize(
    "detour",
    [
        "/v1/tenants/{ours}/../{theirs}/connections/{id}/credentials",
        "/v1/tenants/{ours}/connections/../../{theirs}/connections/{id}/credentials",
        "/v1/tenants/{ours}%2F..%2F{theirs}/connections/{id}/credentials",
        "/v1/tenants/{ours};{theirs}/connections/{id}/credentials",
        "/v1/tenants/{theirs}%00/connections/{id}/credentials",
        "/v1/tenants/ {theirs}/connections/{id}/credentials",
        "/v1/tenants/{{{theirs}}}/connections/{id}/credentials",
        "/v1/tenants/urn:uuid:{theirs}/connections/{id}/credentials",
        "/V1/tenants/{theirs}/connections/{id}/credentials",
    ],
)
def test_no_detour_leads_to_another_tenants_connection(scene: Scene, detour: str):
    path = detour.format(ours=scene.acme["id"], theirs=scene.globex["id"], id=scene.theirs["id"])
    with untouched(scene.world, scene.theirs):
        response = scene.mallory.raw("POST", path)
        problem(response, 404, "not_found")


def test_another_spelling_of_the_id_is_still_somebody_elses(scene: Scene):
    with untouched(scene.world, scene.theirs):
        response = scene.mallory.raw("POST", path_of(scene.theirs, "/credentials").upper().lower())
        problem(response, 404, "not_found")
        shouted = f"/v1/tenants/{scene.globex['id'].upper()}/connections/{scene.theirs['id'].upper()}"
        problem(scene.mallory.raw("POST", f"{shouted}/credentials"), 404, "not_found")


@pytest.mark.parametrize("status", ["suspended", "insecure", "pending"])
def test_the_state_of_another_tenants_connection_shows_nowhere(scene: Scene, world, status: str):
    tenant = world.tenant("Globex")
    connection = world.connection(tenant) if status == "suspended" else None
    if status == "suspended":
        world.admin("POST", path_of(connection, "/suspend"), {"reason": "a test"})
    elif status == "pending":
        connection = world.connect(tenant, "arn:aws:iam::210987654321:role/deputy-gone", status="pending")
    else:
        kit = world.kit(tenant)
        role = Customer(world.aws).role(kit["role_name"], without_external_id(kit["trust_policy"]))
        connection = world.connect(tenant, role, status="insecure")
    with untouched(world, connection):
        answers = [
            problem(scene.mallory.raw("POST", path_of(connection, what)), 404, "not_found")
            for what in ("/credentials", "/verify")
        ]
    nothing = scene.mallory.raw("POST", f"/v1/tenants/{absent()}/connections/{absent()}/verify")
    assert answers == [problem(nothing, 404, "not_found")] * 2


@pytest.mark.parametrize("route", ["POST /v1/tenants", "GET /v1/connections"])
def test_a_bound_key_has_no_business_on_routes_that_span_tenants(scene: Scene, route: str):
    method, path = route.split()
    with untouched(scene.world, scene.theirs):
        body = {"body": {"name": "Mallory Ltd"}} if method == "POST" else {}
        response = scene.mallory.raw(method, path, **body)
    problem(response, 403, "forbidden")
    assert refusal(scene.world, response)["tenant_id"] is None
