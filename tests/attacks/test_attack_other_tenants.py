"""Mallory, with every right in Acme, goes for what is Globex's: by id, in every route, on every
kind of path.
"""

from tests.attacks.evidence import absent, case, problem, refusal, refusals, untouched
from tests.attacks.routes import OF_A_CONNECTION, OF_A_TENANT, ROUTES, routes_of
from tests.support.cast import Customer, path_of, without_external_id


def test_every_route_is_attacked_here(app):
    assert {str(route) for route in ROUTES} == routes_of(app)


def mischief(scene, route, tenant_id, connection_id, api=None):
    body = route.body
    if body and "role_arn" in body:
        body = {"role_arn": scene.theirs["role_arn"]}
    path = route.at(tenant_id=tenant_id, connection_id=connection_id)
    return route.send(api or scene.mallory, path, body=body)


def test_another_tenants_thing_answers_like_one_that_does_not_exist(scene):
    responses = []
    with untouched(scene.world, scene.theirs, scene.ours):
        for route in OF_A_TENANT:
            with case(str(route)):
                foreign = mischief(scene, route, scene.globex["id"], scene.theirs["id"])
                nothing = mischief(scene, route, absent(), absent())
                assert problem(foreign, 404, "not_found") == problem(nothing, 404, "not_found")
                assert not scene.tells_of_globex(foreign.text)
                responses += (foreign, nothing)
                headers = [dict(response.headers) for response in (foreign, nothing)]
                for name in ("X-Request-Id", "Date"):
                    headers[0].pop(name, None)
                    headers[1].pop(name, None)
                assert headers[0] == headers[1]
    for event in refusals(scene.world, *responses):
        assert (event["tenant_id"], event["connection_id"]) == (None, None)
        assert event["details"]["code"] == "not_found"
        assert event["actor"]["kind"] == "api_key"


def test_path_and_row_must_agree(scene):
    """For the vendor's own key too."""
    responses = []
    with untouched(scene.world, scene.theirs, scene.ours):
        for route in OF_A_CONNECTION:
            responses.append(mischief(scene, route, absent(), absent()))
            nothing = problem(responses[-1], 404, "not_found")
            for tenant, connection in ((scene.acme, scene.theirs), (scene.globex, scene.ours)):
                for api in (scene.mallory, scene.admin):
                    with case(str(route), tenant=tenant["name"], bound=api is scene.mallory):
                        response = mischief(scene, route, tenant["id"], connection["id"], api)
                        assert problem(response, 404, "not_found") == nothing
                        responses.append(response)
    for event in refusals(scene.world, *responses):
        assert (event["tenant_id"], event["connection_id"]) == (None, None)


def test_a_connection_has_no_other_name_than_its_id(scene):
    ours, theirs, connection_id = scene.acme["id"], scene.globex["id"], scene.theirs["id"]
    values = [scene.theirs[by] for by in ("role_arn", "account_id", "external_id")]
    paths = [
        f"/v1/tenants/{ours}/../{theirs}/connections/{connection_id}",
        f"/v1/tenants/{ours}%2F..%2F{theirs}/connections/{connection_id}",
        f"/v1/tenants/{ours};{theirs}/connections/{connection_id}",
        f"/v1/tenants/{theirs}%00/connections/{connection_id}",
        f"/v1/tenants/urn:uuid:{theirs}/connections/{connection_id}",
        f"/V1/tenants/{theirs}/connections/{connection_id}",
        f"/v1/tenants/{theirs.upper()}/connections/{connection_id.upper()}",
    ]
    for name in (*values, scene.theirs["role_arn"].rpartition("/")[2]):
        paths += [
            f"/v1/tenants/{ours}/connections/{name}",
            f"/v1/tenants/{name}/connections/{connection_id}",
        ]
    with untouched(scene.world, scene.theirs):
        for path in paths:
            for method, what in (("POST", "/credentials"), ("GET", "/container-credentials")):
                with case(path + what):
                    problem(scene.mallory.raw(method, path + what), 404, "not_found")


def test_the_state_of_another_tenants_connection_shows_nowhere(scene, world):
    tenant = world.tenant("Globex")
    kit = world.kit(tenant)
    role = Customer(world.aws).role(kit["role_name"], without_external_id(kit["trust_policy"]))
    connections = [
        world.connect(tenant, "arn:aws:iam::210987654321:role/deputy-gone", status="pending"),
        world.connect(tenant, role, status="insecure"),
        world.connection(),
    ]
    world.suspend(connections[-1])
    answers = []
    with untouched(world, *connections):
        for connection in ({"tenant_id": absent(), "id": absent()}, *connections):
            for what in ("/credentials", "/verify"):
                response = scene.mallory.raw("POST", path_of(connection, what))
                answers.append(problem(response, 404, "not_found"))
    assert answers == [answers[0]] * 8


def test_a_bound_key_has_no_business_on_routes_that_span_tenants(scene):
    for method, path, body in (
        ("POST", "/v1/tenants", {"body": {"name": "Mallory Ltd"}}),
        ("GET", "/v1/connections", {}),
    ):
        with untouched(scene.world, scene.theirs):
            response = scene.mallory.raw(method, path, **body)
        problem(response, 403, "forbidden")
        assert refusal(scene.world, response)["tenant_id"] is None
