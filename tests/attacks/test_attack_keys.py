"""API keys: what is not one, what one may not do, and that none makes, sees or revokes a
stronger one.
"""

import datetime as dt
from uuid import UUID

import pytest
import time_machine

from app.identity.api_keys import generate_key
from app.identity.scopes import ALL_SCOPES, Scope
from tests.attacks.evidence import (
    Scene,
    absent,
    case,
    newest,
    on_sqlite,
    problem,
    refusal,
    refusals,
    untouched,
)
from tests.attacks.routes import ROUTES
from tests.conftest import OPERATOR
from tests.support.cast import World, path_of

pytestmark = on_sqlite  # nothing here depends on the database

NOT_A_KEY = {
    "nothing": lambda key: "",
    "only the scheme": lambda key: "Bearer",
    "only the scheme and a space": lambda key: "Bearer ",
    "another scheme": lambda key: f"Basic {key}",
    "two spaces": lambda key: f"Bearer  {key}",
    "a tab": lambda key: f"Bearer\t{key}",
    "trailing newline": lambda key: f"Bearer {key}\n",
    "trailing NUL": lambda key: f"Bearer {key}\0",
    "swapped case": lambda key: f"Bearer {key.swapcase()}",
    "another prefix": lambda key: f"Bearer {key.replace('dpk_', 'dpk-')}",
    "only the prefix": lambda key: "Bearer dpk__",
    "secret's case swapped": lambda key: f"Bearer {key[:21]}{key[21:].swapcase()}",
    "truncated": lambda key: f"Bearer {key[:-1]}",
    "longer": lambda key: f"Bearer {key}A",
    "padded": lambda key: f"Bearer {key}=",
    "last character changed": lambda key: f"Bearer {key[:-1]}{'A' if key[-1] != 'A' else 'B'}",
    "first digit changed": lambda key: f"Bearer dpk_{'0' if key[4] != '0' else '1'}{key[5:]}",
    "its lookup with another secret": lambda key: f"Bearer {key[:21]}{generate_key()[21:]}",
    "its secret with another lookup": lambda key: f"Bearer {generate_key()[:21]}{key[21:]}",
    "never issued": lambda key: f"Bearer {generate_key()}",
    "twice": lambda key: f"Bearer {key}, Bearer {key}",
    "twice the scheme": lambda key: f"Bearer Bearer {key}",
    "full-width digit": lambda key: f"Bearer dpk_\uff10{key[5:]}".encode().decode("latin-1"),
    "nothing in ASCII": lambda key: f"Bearer {'é' * 64}",
    "very long": lambda key: f"Bearer {key}{'A' * 60_000}",
}
NOT_A_BARE_KEY = {
    "truncated": lambda key: key[:-1],
    "twice": lambda key: f"{key} {key}",
    "another scheme": lambda key: f"Token {key}",
    "space before": lambda key: f" {key}",
}


@pytest.mark.parametrize("route", ["POST /credentials", "GET /container-credentials", "GET "])
def test_what_is_not_a_key_is_unauthenticated_and_leaves_no_trace(scene: Scene, route: str):
    method, what = route.split(" ")
    anonymous, last = scene.mallory.with_key(None), newest(scene.world, 1)
    headers = NOT_A_KEY | (
        {"bare": lambda key: key} if "container" not in route else NOT_A_BARE_KEY
    )
    with untouched(scene.world, scene.ours):
        for name, header in headers.items():
            with case(name):
                environ = {"HTTP_AUTHORIZATION": header(scene.mallory.key)}
                response = anonymous.raw(
                    method, path_of(scene.ours, what), environ_overrides=environ
                )
                refused = problem(response, 401, "unauthenticated")
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
                assert scene.mallory.key[21:] not in response.text
                assert refused["detail"].startswith("This needs a")
    assert newest(scene.world, 1) == last


def test_where_sdks_ask_for_credentials_the_header_may_hold_the_key_alone(scene: Scene):
    """As AWS's SDKs send it there (AWS_CONTAINER_AUTHORIZATION_TOKEN)."""
    bare = {"HTTP_AUTHORIZATION": scene.world.admin.key}
    path = path_of(scene.ours, "/container-credentials")
    assert (
        scene.world.admin.with_key(None).raw("GET", path, environ_overrides=bare).status_code == 200
    )


def test_no_route_takes_a_key_from_anywhere_but_the_header(scene: Scene):
    key, last = scene.world.admin.key, newest(scene.world, 1)
    headers = {"X-Api-Key": key, "Cookie": f"key={key}", "Proxy-Authorization": f"Bearer {key}"}
    with untouched(scene.world, scene.ours):
        for route in ROUTES:
            path = route.at(
                tenant_id=scene.acme["id"], connection_id=scene.ours["id"], key_id=absent()
            )
            path += f"?api_key={key}&access_token={key}&key={key}"
            body = {} if route.body is None else {"body": route.body}
            with case(str(route)):
                response = scene.mallory.with_key(None).raw(
                    route.method, path, headers=headers, **body
                )
                problem(response, 401, "unauthenticated")
    assert newest(scene.world, 1) == last


def issued(app, **wanted):
    options = {"name": "a key", "scopes": ALL_SCOPES, "tenant_id": None, "expires_at": None}
    return app.extensions["deputy"].api_keys.create_key(OPERATOR, **(options | wanted))


def test_dead_keys_are_all_the_same(scene: Scene, world: World, app):
    tenant = world.tenant()
    passed = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    with time_machine.travel(passed - dt.timedelta(minutes=1), tick=False):
        _, expired = issued(app, expires_at=passed)
    of_deleted, revoked = world.key("tenants:read", tenant=tenant), world.key("tenants:read")
    expired = world.admin.with_key(expired)
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    revoked_id = next(
        event["details"]["api_key_id"]
        for event in world.audit(action="api_key.created")
        if event["tenant_id"] is None and event["details"]["scopes"] == ["tenants:read"]
    )
    world.admin("DELETE", f"/v1/api-keys/{revoked_id}", expect=204)
    never = world.admin.with_key(generate_key())
    answers = [
        problem(api.raw("GET", "/v1/tenants"), 401, "unauthenticated")
        for api in (of_deleted, revoked, expired, never)
    ]
    assert answers == [answers[0]] * 4


def test_every_route_wants_its_scope_before_it_looks_for_anything(scene: Scene):
    there = {"tenant_id": scene.acme["id"], "connection_id": scene.ours["id"], "key_id": absent()}
    nowhere = {name: absent() for name in there}
    without = {
        scope: scene.world.key(*(ALL_SCOPES - {scope}))
        for scope in {route.scope for route in ROUTES}
    }
    responses = []
    with untouched(scene.world, scene.ours):
        for route in ROUTES:
            with case(str(route)):
                answers = []
                for ids, body in (
                    (there, route.body),
                    (nowhere, route.body),
                    (nowhere, {"nonsense": 1}),
                ):
                    options = {} if route.body is None else {"body": body}
                    response = without[route.scope].raw(route.method, route.at(**ids), **options)
                    answers.append(problem(response, 403, "forbidden"))
                    responses.append(response)
                assert answers == [answers[0]] * 3
                assert route.scope in answers[0]["detail"]
    for event in refusals(scene.world, *responses):
        assert (event["tenant_id"], event["details"]["code"]) == (None, "forbidden")


KEYS = "/v1/api-keys"


def test_a_key_gives_away_only_what_it_has(scene: Scene):
    maker = scene.world.key("keys:write", tenant=scene.acme)
    for scope in sorted(set(Scope) - {"keys:write"}):
        for scopes in ([scope], ["keys:write", scope]):
            with case(scopes=scopes):
                response = maker.raw("POST", KEYS, {"name": "stronger", "scopes": scopes})
                problem(response, 403, "forbidden")
                assert refusal(scene.world, response)["action"] == "api_key.refused"
    assert maker("GET", KEYS)["items"][0]["name"] == "a program"


def test_scopes_are_named_one_by_one(scene: Scene):
    for scopes in (
        [],
        ["*"],
        ["keys:*"],
        ["KEYS:WRITE"],
        ["keys:write\n"],
        ["KEYS_WRITE"],
        ["tenants:read", 5],
        [None],
        [["keys:write"]],
        "keys:write",
        {"keys:write": True},
        255,
        None,
    ):
        with case(scopes=scopes):
            response = scene.world.admin.raw("POST", KEYS, {"name": "odd", "scopes": scopes})
            problem(response, 422, "validation_failed")


def test_a_bound_key_makes_only_keys_of_its_own_tenant(scene: Scene):
    for named in ({}, {"tenant_id": None}, {"tenant_id": scene.acme["id"]}):
        with case(named=named):
            spare = scene.mallory(
                "POST", KEYS, {"name": "spare", "scopes": ["audit:read"]} | named, expect=201
            )
            assert spare["tenant_id"] == scene.acme["id"]
            events = scene.mallory.with_key(spare["key"])("GET", "/v1/audit-events?limit=200")[
                "items"
            ]
            assert {event["tenant_id"] for event in events} == {scene.acme["id"]}
    for odd in ("", "null", 0, [], "00000000-0000-0000-0000-00000000000g"):
        with case(odd=odd):
            body = {"name": "spare", "scopes": ["audit:read"], "tenant_id": odd}
            problem(scene.mallory.raw("POST", KEYS, body), 422, "validation_failed")


def test_a_bound_key_makes_none_of_another_tenant(scene: Scene):
    answers = []
    with untouched(scene.world, scene.theirs):
        for tenant in (scene.globex["id"], absent()):
            body = {"name": "spare", "scopes": ["audit:read"], "tenant_id": tenant}
            response = scene.mallory.raw("POST", KEYS, body)
            answers.append(problem(response, 404, "not_found"))
            assert refusal(scene.world, response)["tenant_id"] is None
    assert answers[0] == answers[1]


def test_a_key_does_not_outlive_its_maker(scene: Scene):
    at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    maker = scene.world.key("keys:write", expires_at=at.isoformat())
    body = {"name": "spare", "scopes": ["keys:write"]}
    for later in (at + dt.timedelta(seconds=1), at.replace(year=9998)):
        response = maker.raw("POST", KEYS, {**body, "expires_at": later.isoformat()})
        assert set(problem(response, 422, "validation_failed")["errors"]) == {"expires_at"}
    for same in ({}, {"expires_at": None}, {"expires_at": at.isoformat()}):
        made = maker("POST", KEYS, body | same, expect=201)
        assert dt.datetime.fromisoformat(made["expires_at"]) == at
    sooner = (at - dt.timedelta(minutes=30)).isoformat()
    made_sooner = maker("POST", KEYS, {**body, "expires_at": sooner}, expect=201)
    assert dt.datetime.fromisoformat(made_sooner["expires_at"]) < at
    grandchild = maker.with_key(made["key"])("POST", KEYS, body, expect=201)
    assert dt.datetime.fromisoformat(grandchild["expires_at"]) == at
    response = maker.raw("POST", KEYS, {**body, "expires_at": "2020-01-01T00:00:00Z"})
    problem(response, 422, "validation_failed")


@pytest.mark.parametrize("bound", [True, False], ids=["bound", "unbound"])
def test_a_key_neither_sees_nor_revokes_a_stronger_one(scene: Scene, app, bound: bool):
    globex, acme = UUID(scene.globex["id"]), UUID(scene.acme["id"])
    few = frozenset({Scope.KEYS_WRITE})
    keys = {
        "more scopes": issued(app, scopes=few | {Scope.TENANTS_READ}, tenant_id=acme),
        "another scope": issued(app, scopes=frozenset({Scope.CREDENTIALS_ISSUE}), tenant_id=acme),
    }
    if bound:
        keys |= {
            "another tenant": issued(app, scopes=few, tenant_id=globex),
            "unbound": issued(app, scopes=few),
        }
    weak = scene.world.key("keys:write", "audit:read", tenant=scene.acme if bound else None)
    no_stronger = weak("POST", KEYS, {"name": "spare", "scopes": ["keys:write"]}, expect=201)["id"]
    listed = {key["id"]: key["tenant_id"] for key in weak("GET", f"{KEYS}?limit=200")["items"]}
    assert no_stronger in listed
    assert not bound or set(listed.values()) == {scene.acme["id"]}
    nothing = problem(weak.raw("GET", f"{KEYS}/{absent()}"), 404, "not_found")
    for why, (key, text) in keys.items():
        assert str(key.id) not in listed, why
        for method in ("GET", "DELETE"):
            response = weak.raw(method, f"{KEYS}/{key.id}")
            assert problem(response, 404, "not_found") == nothing, why
            assert refusal(scene.world, response)["tenant_id"] is None
        assert scene.world.admin.raw("GET", f"{KEYS}/{key.id}").status_code == 200, why
        assert weak.with_key(text).raw("GET", KEYS).status_code in {200, 403}, why
    weak("DELETE", f"{KEYS}/{no_stronger}", expect=204)


def test_how_long_another_key_lives_does_not_hide_it(scene: Scene, app):
    """Scopes and tenant alone decide which keys one sees and revokes (design, API keys); an expiry
    only limits what one makes.
    """
    lasting, _ = issued(app, scopes=frozenset({Scope.AUDIT_READ}))
    at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    passing = scene.world.key(*ALL_SCOPES, expires_at=at.isoformat())
    assert passing("GET", f"{KEYS}/{lasting.id}")["expires_at"] is None
    passing("DELETE", f"{KEYS}/{lasting.id}", expect=204)
