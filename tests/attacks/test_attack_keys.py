"""API keys: what is not one, what one may not do, and that none makes, sees or revokes a
stronger one.
"""

import datetime as dt
from uuid import UUID

import pytest
import time_machine

from app.identity.key_text import generate_key
from app.identity.scopes import ALL_SCOPES, Scope
from tests.attacks.evidence import absent, case, newest, problem, refusal, refusals, untouched
from tests.attacks.routes import ROUTES
from tests.conftest import OPERATOR
from tests.support.cast import path_of


def not_a_key(key):
    """Authorization headers that hold no key."""
    lookup, secret, other = key[:21], key[21:], generate_key()
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")
    texts = [
        *(key.swapcase(), lookup + secret.swapcase(), key[:-1], f"{key}A", changed, f"{key}\n"),
        *(f"{key}\0", key.replace("dpk_", "dpk-"), "dpk__", other, f"{key}, Bearer {key}"),
        *(lookup + other[21:], other[:21] + secret, f" {key}", "é" * 64, key + "A" * 60_000),
        f"dpk_\uff10{key[5:]}".encode().decode("latin-1"),
    ]
    return ["", "Bearer", f"Basic {key}", f"Bearer\t{key}", *(f"Bearer {text}" for text in texts)]


@pytest.mark.parametrize("route", ["POST /credentials", "GET /container-credentials", "GET "])
def test_what_is_not_a_key_is_unauthenticated_and_leaves_no_trace(scene, route):
    method, what = route.split(" ")
    anonymous, last = scene.mallory.with_key(None), newest(scene.world, 1)
    key = scene.mallory.key
    bare = [key[:-1], f"{key} {key}", f" {key}"] if "container" in route else [key]
    with untouched(scene.world, scene.ours):
        for header in (*not_a_key(key), *bare):
            with case(header.replace(key[21:], "…")[:80]):
                environ = {"HTTP_AUTHORIZATION": header}
                response = anonymous.raw(
                    method, path_of(scene.ours, what), environ_overrides=environ
                )
                refused = problem(response, 401, "unauthenticated")
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
                assert key[21:] not in response.text
                assert refused["detail"].startswith("This needs a")
    assert newest(scene.world, 1) == last


def test_no_route_takes_a_key_from_anywhere_but_the_header(scene):
    key, last = scene.admin.key, newest(scene.world, 1)
    headers = {"X-Api-Key": key, "Cookie": f"key={key}", "Proxy-Authorization": f"Bearer {key}"}
    with untouched(scene.world, scene.ours):
        for route in ROUTES:
            path = route.at(**scene.ids)
            path += f"?api_key={key}&access_token={key}&key={key}"
            with case(str(route)):
                response = route.send(scene.mallory.with_key(None), path, headers=headers)
                problem(response, 401, "unauthenticated")
    assert newest(scene.world, 1) == last


def issued(app, **wanted):
    options = {"name": "a key", "scopes": ALL_SCOPES, "tenant_id": None, "expires_at": None}
    return app.extensions["deputy"].api_keys.create_key(OPERATOR, **(options | wanted))


def test_dead_keys_are_all_the_same(scene, world, app):
    tenant = world.tenant()
    passed = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    with time_machine.travel(passed - dt.timedelta(minutes=1), tick=False):
        _, expired = issued(app, expires_at=passed)
    of_deleted, (revoked, revoked_text) = world.key("tenants:read", tenant=tenant), issued(app)
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    world.admin("DELETE", f"/v1/api-keys/{revoked.id}", expect=204)
    answers = []
    for key in (of_deleted.key, revoked_text, expired, generate_key()):
        response = world.admin.with_key(key).raw("GET", "/v1/tenants")
        answers.append(problem(response, 401, "unauthenticated"))
    assert answers == [answers[0]] * 4


def test_every_route_wants_its_scope_before_it_looks_for_anything(scene):
    there, nowhere = scene.ids, {name: absent() for name in scene.ids}
    others = ALL_SCOPES - {"tenants:create"}  # it opens some routes too
    without = {scope: scene.world.key(*(others - {scope})) for scope in others}
    responses = []
    with untouched(scene.world, scene.ours):
        for route in ROUTES:
            with case(str(route)):
                answers = []
                good = route.body
                for ids, body in ((there, good), (nowhere, good), (nowhere, {"nonsense": 1})):
                    response = route.send(without[route.scope], route.at(**ids), body=body)
                    answers.append(problem(response, 403, "forbidden"))
                    responses.append(response)
                assert answers == [answers[0]] * 3
                assert route.scope in answers[0]["detail"]
    for event in refusals(scene.world, *responses):
        assert (event["tenant_id"], event["details"]["code"]) == (None, "forbidden")


KEYS, SPARE = "/v1/api-keys", {"name": "spare", "scopes": ["audit:read"]}


def test_a_key_gives_away_only_what_it_has(scene):
    maker, responses = scene.world.key("keys:write", tenant=scene.acme), []
    for scope in sorted(set(Scope) - {"keys:write"}):
        for scopes in ([scope], ["keys:write", scope]):
            with case(scopes=scopes):
                response = maker.raw("POST", KEYS, {"name": "stronger", "scopes": scopes})
                problem(response, 403, "forbidden")
                responses.append(response)
    for event in refusals(scene.world, *responses):
        assert event["action"] == "api_key.refused"
    assert maker("GET", KEYS)["items"][0]["name"] == "a program"


def test_scopes_are_named_one_by_one(scene):
    for scopes in ([], ["*"], ["keys:*"], ["KEYS:WRITE"], ["tenants:read", 5], "keys:write", 255):
        with case(scopes=scopes):
            response = scene.admin.raw("POST", KEYS, {"name": "odd", "scopes": scopes})
            problem(response, 422, "validation_failed")


def test_a_bound_key_makes_only_keys_of_its_own_tenant(scene):
    for named in ({}, {"tenant_id": None}, {"tenant_id": scene.acme["id"]}):
        with case(named=named):
            spare = scene.mallory("POST", KEYS, SPARE | named, expect=201)
            assert spare["tenant_id"] == scene.acme["id"]
            own = scene.mallory.with_key(spare["key"])
            events = own("GET", "/v1/audit-events?limit=200")["items"]
            assert {event["tenant_id"] for event in events} == {scene.acme["id"]}
    for odd in ("", 0, [], "00000000-0000-0000-0000-00000000000g"):
        with case(odd=odd):
            response = scene.mallory.raw("POST", KEYS, SPARE | {"tenant_id": odd})
            problem(response, 422, "validation_failed")
    answers = []
    with untouched(scene.world, scene.theirs):
        for tenant in (scene.globex["id"], absent()):
            response = scene.mallory.raw("POST", KEYS, SPARE | {"tenant_id": tenant})
            answers.append(problem(response, 404, "not_found"))
            assert refusal(scene.world, response)["tenant_id"] is None
    assert answers[0] == answers[1]


def test_a_key_does_not_outlive_its_maker(scene):
    end = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    maker = scene.world.key("keys:write", expires_at=end.isoformat())
    body = {"name": "spare", "scopes": ["keys:write"]}
    for bad in (end + dt.timedelta(seconds=1), end.replace(year=9998), end.replace(year=2020)):
        response = maker.raw("POST", KEYS, body | {"expires_at": bad.isoformat()})
        assert set(problem(response, 422, "validation_failed")["errors"]) == {"expires_at"}
    sooner = end - dt.timedelta(minutes=30)
    for given, expected in ((None, end), (end.isoformat(), end), (sooner.isoformat(), sooner)):
        made = maker("POST", KEYS, body | {"expires_at": given}, expect=201)
        assert dt.datetime.fromisoformat(made["expires_at"]) == expected
    grandchild = maker.with_key(made["key"])("POST", KEYS, body, expect=201)
    assert dt.datetime.fromisoformat(grandchild["expires_at"]) == sooner


def test_a_key_that_is_replaced_while_its_request_arrives_makes_none_that_outlives_it(scene, app):
    """The key was checked before, with the request's header."""
    keys = app.extensions["deputy"].api_keys
    everything = frozenset({Scope.KEYS_WRITE})
    old, text = keys.create_key(OPERATOR, name="x", scopes=everything)
    other, _ = keys.create_key(OPERATOR, name="x", scopes=everything)
    principal = keys.authenticate(text)
    keys.replace_key(OPERATOR, old.id, grace_seconds=60)
    end = keys.get_key(OPERATOR, old.id)[0].expires_at
    child, _ = keys.create_key(principal, name="x", scopes=everything)
    successor, _, _ = keys.replace_key(principal, other.id, grace_seconds=0)
    assert child.expires_at == successor.expires_at == end is not None


@pytest.mark.parametrize("bound", [True, False], ids=["bound", "unbound"])
def test_a_key_neither_sees_nor_revokes_a_stronger_one(scene, app, bound):
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
        assert scene.admin.raw("GET", f"{KEYS}/{key.id}").status_code == 200, why
        assert weak.with_key(text).raw("GET", KEYS).status_code in {200, 403}, why
    weak("DELETE", f"{KEYS}/{no_stronger}", expect=204)


def test_how_long_another_key_lives_does_not_hide_it(scene, app):
    """Scopes and tenant alone decide which keys one sees and revokes (design, API keys); an expiry
    only limits what one makes.
    """
    lasting, _ = issued(app, scopes=frozenset({Scope.AUDIT_READ}))
    end = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    passing = scene.world.key(*ALL_SCOPES, expires_at=end.isoformat())
    assert passing("GET", f"{KEYS}/{lasting.id}")["expires_at"] is None
    passing("DELETE", f"{KEYS}/{lasting.id}", expect=204)
