"""Who made a key or a link; what goes when a key is revoked, and what stays when one is
replaced.
"""

import datetime as dt
from collections.abc import Iterator

import pytest
import time_machine
from sqlalchemy import func, select

from app.factory import create_app
from app.store.models import Tenant
from tests.conftest import with_settings
from tests.support.cast import Api, World

EVERYTHING = ["keys:write", "connections:write", "connections:read", "tenants:read"]
DAY = 86_400


class Program:
    """Somebody's key: what the API says of it, and what can be done with it."""

    def __init__(self, world, shown):
        self.world, self.id, self.shown = world, shown["id"], shown
        self.api = world.admin.with_key(shown["key"])
        self.path = f"/v1/api-keys/{self.id}"

    def child(self, **wanted):
        return program(self.world, self.api, **wanted)

    def link(self, tenant, **wanted):
        """The path of the page of a link that this key made."""
        path = f"/v1/tenants/{tenant['id']}/onboarding-links"
        url = self.api("POST", path, wanted, expect=201)["url"]
        return url.removeprefix("http://localhost:8000")

    def read(self):
        return self.world.admin("GET", self.path)

    def replace(self, by=None, **body):
        replace = by or self.world.admin
        return Program(self.world, replace("POST", f"{self.path}/replace", body, expect=201))

    def revoke(self):
        self.world.admin("DELETE", self.path, expect=204)

    def works(self):
        return bool(self.api.raw("GET", "/v1/tenants?limit=1").status_code == 200)


def program(world, by=None, **wanted):
    body = {"name": "a program", "scopes": EVERYTHING, **wanted}
    return Program(world, (by or world.admin)("POST", "/v1/api-keys", body, expect=201))


def made(shown):
    """How many keys and links."""
    return shown["made"]["keys"], shown["made"]["links"]


def opens(world, page):
    return bool(world.admin.with_key(None).raw("GET", page).status_code == 200)


def event_of(world, program, action):
    return next(e for e in world.audit(action=action) if e["details"]["api_key_id"] == program.id)


# --- who made what ---


def test_only_live_ones_are_counted_and_an_expired_link_is_revoked_too(world):
    """Its registration token goes on to count."""
    tenant, maker = world.tenant(), program(world)
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    maker.child(expires_at=soon.isoformat())
    maker.api("DELETE", maker.child().path, expect=204)
    maker.link(tenant, expires_in=60)
    assert made(maker.read()) == (1, 1)
    with time_machine.travel(soon + dt.timedelta(seconds=1)):
        assert made(maker.read()) == (0, 0)
        maker.revoke()
        assert event_of(world, maker, "api_key.revoked")["details"]["links_revoked"] == 1


def test_a_key_of_the_command_line_has_no_maker(world):
    arguments = ["keys", "create", "--name", "an operator's key", "--scope", "tenants:read"]
    made = world.admin.app.test_cli_runner().invoke(args=arguments)
    assert made.exit_code == 0, made.output
    keys = {key["name"]: key for key in world.admin("GET", "/v1/api-keys?limit=200")["items"]}
    assert keys["an operator's key"]["made_by"] is None


# --- revoking ---


def test_revoking_a_key_revokes_the_keys_and_links_that_came_of_it(world):
    """A key says who made it, and how many it made; the event says which. Makers and siblings
    stay.
    """
    tenant, maker, bystander = world.tenant(), program(world), program(world)
    child, sibling = maker.child(tenant_id=tenant["id"]), maker.child()
    grandchild, page = child.child(), child.link(tenant)
    keys = {key["id"]: key for key in world.admin("GET", "/v1/api-keys?limit=200")["items"]}
    for key, maker_id, made_by_it in (
        (maker, bystander.shown["made_by"], (3, 1)),
        (child, maker.id, (1, 1)),
        (grandchild, child.id, (0, 0)),
    ):
        assert key.read()["made_by"] == keys[key.id]["made_by"] == maker_id
        assert made(key.read()) == made_by_it
    maker.api("DELETE", sibling.path, expect=204)
    assert maker.works()
    assert child.works()
    assert not sibling.works()
    (link,) = world.admin("GET", f"/v1/tenants/{tenant['id']}/onboarding-links")["items"]
    maker.revoke()
    for ended in (maker, child, grandchild):
        assert not ended.works()
    assert bystander.works()
    assert not opens(world, page)
    assert event_of(world, maker, "api_key.revoked")["details"] == {
        "api_key_id": maker.id,
        "name": "a program",
        "keys_revoked": 2,
        "links_revoked": 1,
        "registrations": count_tenants(world),
        "api_key_ids": [child.id, grandchild.id],
        "onboarding_link_ids": [link["id"]],
        "webhook_endpoints_disabled": 0,
        "webhook_endpoint_ids": [],
    }


def test_the_event_of_many_names_a_hundred(world, monkeypatch):
    monkeypatch.setattr("app.identity.family_revocation._NAMED", 2)
    maker = program(world)
    children = [maker.child().id for _ in range(3)]
    maker.revoke()
    details = event_of(world, maker, "api_key.revoked")["details"]
    assert details["keys_revoked"] == 3
    assert details["api_key_ids"] == children[:2]


def count_tenants(world):
    with world.admin.app.extensions["deputy"].db.read() as db:
        return db.scalar(
            select(func.count()).select_from(Tenant).where(Tenant.deleted_at.is_(None))
        )


def test_of_how_many_tenants_a_key_could_read_the_registration_token(world):
    tenant = world.tenant()
    for wanted, count in (
        ({"scopes": ["tenants:read"]}, 0),
        ({"tenant_id": tenant["id"]}, 1),
        ({}, count_tenants(world)),
    ):
        assert program(world, **wanted).read()["made"]["registrations"] == count


# --- replacing ---


def test_a_successor_is_as_the_old_one_was(world):
    tenant = world.tenant()
    old = program(world, tenant_id=tenant["id"], permission_sets=["inventory"])
    new = old.replace()
    same = ("name", "scopes", "tenant_id", "permission_sets", "expires_at")
    assert {name: new.shown[name] for name in same} == {name: old.shown[name] for name in same}
    assert new.id != old.id
    assert new.works()
    replaced = event_of(world, old, "api_key.replaced")
    assert replaced["tenant_id"] == tenant["id"]
    assert replaced["details"] == {
        "api_key_id": old.id,
        "name": "a program",
        "successor_id": new.id,
        "grace_seconds": DAY,
    }
    assert event_of(world, new, "api_key.created")["tenant_id"] == tenant["id"]


def test_the_old_key_ends_after_the_grace(world):
    for body, grace in (
        ({}, DAY),
        ({"grace_seconds": 7 * DAY}, 7 * DAY),
        ({"grace_seconds": 0}, 0),
    ):
        start = dt.datetime.now(dt.UTC)

        def after(seconds, start=start):
            return start + dt.timedelta(seconds=seconds)

        with time_machine.travel(start, tick=False):
            old, brief = program(world), program(world, expires_at=after(300).isoformat())
            new = old.replace(**body)
            brief.replace(**body)
            assert old.read()["expires_at"] == after(grace).isoformat()
            not_prolonged = after(min(grace, 300)).isoformat()
            assert brief.read()["expires_at"] == not_prolonged
            assert old.works() == bool(grace)
        with time_machine.travel(after(grace - 1), tick=False):
            assert old.works()
        with time_machine.travel(after(grace), tick=False):
            assert not old.works()
            assert new.works()


def test_a_grace_is_0_to_7_days(world):
    old = program(world)
    for grace in (-1, 7 * DAY + 1, 1.5, "1", None, True):
        problem = world.admin("POST", f"{old.path}/replace", {"grace_seconds": grace}, expect=422)
        assert list(problem["errors"]) == ["grace_seconds"]
    assert old.read()["expires_at"] is None


def test_replacing_is_no_outage_for_what_the_old_key_made_and_all_goes_with_the_successor(world):
    """Also what the old key makes in its grace."""
    tenant, old = world.tenant(), program(world)
    child, page = old.child(), old.link(tenant)
    new = old.replace()
    assert made(new.shown) == (2, 1)  # the old key itself is one of them
    assert child.read()["made_by"] == new.id
    assert child.works()
    assert opens(world, page)
    late, last_page = old.child(), old.link(tenant)
    assert made(new.read()) == (3, 2)
    new.revoke()
    for ended in (old, child, late):
        assert not ended.works()
    assert not opens(world, page)
    assert not opens(world, last_page)


def test_revoking_the_old_key_in_its_grace_leaves_the_successor_and_its_inheritance(world):
    tenant, old = world.tenant(), program(world)
    child, page, new = old.child(), old.link(tenant), old.replace()
    old.revoke()
    assert not old.works()
    assert new.works()
    assert child.works()
    assert opens(world, page)


def test_a_leaked_key_takes_along_the_successors_that_it_asked_for(world):
    leaked, other = program(world), program(world)
    child = leaked.child()
    successors = [leaked.replace(leaked.api), other.replace(leaked.api)]
    assert made(leaked.read()) == (4, 0), "the other one, in its grace, too"
    leaked.revoke()
    for ended in (leaked, other, child, *successors):
        assert not ended.works()


def test_a_successor_lives_as_long_as_the_old_key_was_made_to_unless_that_key_asked_itself(world):
    start = dt.datetime.now(dt.UTC)
    later, days = start + dt.timedelta(days=400), dt.timedelta(days=500)
    with time_machine.travel(start, tick=False):
        old, own = (program(world, expires_at=(start + days).isoformat()) for _ in range(2))
        for_ever = program(world, expires_at="9998-12-31T00:00:00Z")
    with time_machine.travel(later, tick=False):
        assert old.replace().shown["expires_at"] == (later + days).isoformat()
        assert own.replace(own.api).shown["expires_at"] == own.shown["expires_at"]
        assert for_ever.replace().shown["expires_at"] > "3000"


def test_a_key_is_replaced_once(world):
    old = program(world)
    new = old.replace()
    world.admin.refused("POST", f"{old.path}/replace", expect=409, code="conflict")
    ended = program(world)
    ended.replace(grace_seconds=0)
    world.admin.refused("POST", f"{ended.path}/replace", expect=409, code="conflict")
    assert new.replace().works()


# --- what a bound key may end ---


def test_a_bound_key_ends_only_keys_that_a_bound_key_made(world):
    """Also after it was replaced."""
    tenant = world.tenant()
    ours, worker = (program(world, tenant_id=tenant["id"]) for _ in range(2))
    children = [ours.child() for _ in range(3)]
    for method, suffix, expect in (("DELETE", "", 204), ("POST", "/replace", 201)):
        for key in (worker, ours):
            ours.api.refused(method, key.path + suffix, expect=403, code="forbidden")
            assert key.works()
            assert key.read()["expires_at"] is None
        ours.api(method, children.pop().path + suffix, expect=expect)
    ours.replace().api("DELETE", children.pop().path, expect=204)


# --- for how many ---


@pytest.fixture(scope="module")
def crowded(aws, vendor, config, admin) -> Iterator[World]:
    """A process whose tenants may have two keys and two links."""
    app = create_app(with_settings(config, tenant_keys=2, tenant_links=2))
    yield World(aws, Api(app, admin.key))
    app.extensions["deputy"].db.engine.dispose()


def full(response):
    """Whether it was refused for an hour, because the tenant has all that it may have."""
    assert response.status_code == 429
    assert response.get_json()["code"] == "rate_limited"
    return response.headers["Retry-After"] == "3600"


def test_a_tenant_has_so_many_live_keys(crowded):
    tenant, other = crowded.tenant(), crowded.tenant()
    first, _second = (program(crowded, tenant_id=tenant["id"]) for _ in range(2))
    wanted = {"name": "one more", "scopes": ["tenants:read"]}
    assert full(crowded.admin.raw("POST", "/v1/api-keys", wanted | {"tenant_id": tenant["id"]}))
    assert full(first.api.raw("POST", "/v1/api-keys", wanted | {"tenant_id": None}))
    program(crowded, tenant_id=other["id"])
    program(crowded)  # bound to no tenant
    first.revoke()
    program(crowded, tenant_id=tenant["id"])


def test_a_tenant_that_has_all_its_keys_can_replace_each_of_them_once(crowded):
    tenant = crowded.tenant()
    keys = [program(crowded, tenant_id=tenant["id"]) for _ in range(2)]
    successors = [key.replace() for key in keys]
    assert full(crowded.admin.raw("POST", f"{successors[0].path}/replace", {}))
    assert all(key.works() for key in (*keys, *successors))


def test_a_tenant_has_so_many_live_links(crowded):
    tenant = crowded.tenant()
    path = f"/v1/tenants/{tenant['id']}/onboarding-links"
    first, _ = (crowded.admin("POST", path, {}, expect=201) for _ in range(2))
    assert full(crowded.admin.raw("POST", path, {}))
    crowded.admin("DELETE", f"{path}/{first['id']}", expect=204)
    crowded.admin("POST", path, {}, expect=201)
