"""A sign-up service's key: it makes keys for the tenants that it has just made, with scopes that
it lacks itself.
"""

import datetime as dt
from itertools import product

import pytest
import time_machine

from tests.support.cast import path_of

KEYS = "/v1/api-keys"
SCOPES = ["tenants:create", "keys:delegate"]
SIGN_UP = {"name": "sign-up", "scopes": SCOPES, "may_give": ["credentials:issue"]}
WORKER = {"name": "a worker", "scopes": ["credentials:issue"]}


class SignUp:
    """A sign-up service: it makes tenants, and keys for their workers."""

    def __init__(self, world, made=None, **more):
        self.shown = made or world.admin("POST", KEYS, SIGN_UP | more, expect=201)
        self.world, self.path = world, f"{KEYS}/{self.shown['id']}"
        self.api = world.admin.with_key(self.shown["key"])

    def tenant(self, **more):
        return self.api("POST", "/v1/tenants", {"name": "Acme", **more}, expect=201)

    def worker(self, tenant, *, expect=201, **more):
        return self.api("POST", KEYS, WORKER | {"tenant_id": tenant["id"], **more}, expect=expect)

    def replace(self):
        return SignUp(self.world, self.world.admin("POST", f"{self.path}/replace", expect=201))

    def listed(self):
        return [key["id"] for key in self.api("GET", f"{KEYS}?limit=200")["items"]]


@pytest.fixture
def sign_up(world) -> SignUp:
    return SignUp(world)


def works(api, key):
    # And not 401
    return bool(api.with_key(key["key"]).raw("GET", "/v1/tenants").status_code == 403)


def test_a_delegating_key_makes_one_that_issues_and_issues_nothing_itself(world, sign_up):
    tenant = sign_up.tenant()
    made, connection = sign_up.worker(tenant), world.connection(tenant)
    assert made["scopes"] == ["credentials:issue"]
    assert made["may_give"] is None
    assert made["tenant_id"] == tenant["id"]
    assert made["made_by"] == sign_up.shown["id"]
    world.admin.with_key(made["key"])("POST", path_of(connection, "/credentials"))
    for method, way in (("POST", "/credentials"), ("GET", "/container-credentials")):
        sign_up.api.refused(method, path_of(connection, way), expect=403, code="forbidden")


def test_what_a_key_may_give_is_in_answers_lists_and_events(world):
    made = SignUp(world, may_give=["credentials:issue", "audit:read"]).shown
    listed = next(key for key in world.admin("GET", KEYS)["items"] if key["id"] == made["id"])
    for shown in (made, listed, world.admin("GET", f"{KEYS}/{made['id']}")):
        assert shown["may_give"] == ["audit:read", "credentials:issue"]
    event = world.audit(action="api_key.created")[0]
    assert event["details"]["api_key_id"] == made["id"]
    assert event["details"]["may_give"] == ["audit:read", "credentials:issue"]


def test_a_delegating_key_lists_reads_and_revokes_what_it_could_make(world, sign_up):
    tenant = sign_up.tenant()
    own, vendors = (
        by("POST", KEYS, WORKER | {"tenant_id": tenant["id"]}, expect=201)
        for by in (sign_up.api, world.admin)
    )
    assert sign_up.listed() == [vendors["id"], own["id"]]
    for key in (own, vendors):
        path = f"{KEYS}/{key['id']}"
        assert sign_up.api("GET", path)["id"] == key["id"]
        sign_up.api("DELETE", path, expect=204)
        assert not works(world.admin, key)


def test_a_delegating_key_replaces_none(world, sign_up):
    made = sign_up.worker(sign_up.tenant())
    for path in (f"{KEYS}/{made['id']}/replace", f"{sign_up.path}/replace"):
        sign_up.api.refused("POST", path, {"grace_seconds": 0}, expect=403, code="forbidden")
    assert works(world.admin, made)


def test_who_may_give_is_bound_to_no_tenant_and_gives_no_key_that_makes_keys(world):
    others = "without keys:write and keys:delegate"
    for field, change, words in (
        ("may_give", {"may_give": None}, others),
        ("may_give", {"may_give": []}, "between 1 and 10"),
        ("may_give", {"may_give": ["keys:write"]}, others),
        ("may_give", {"may_give": ["credentials:issue", "keys:delegate"]}, others),
        ("may_give.0", {"may_give": ["*"]}, "Must be one of"),
        ("may_give", {"scopes": ["tenants:create"]}, ""),
        ("scopes", {"scopes": [*SCOPES, "keys:write"]}, "leave one of them out"),
        ("tenant_id", {"tenant_id": world.tenant()["id"]}, "leave it out"),
    ):
        body = SIGN_UP | change
        problem = world.admin.refused("POST", KEYS, body, expect=422, code="validation_failed")
        [(name, [message])] = problem["errors"].items()
        assert (name, words in message) == (field, True), message


def test_what_a_key_may_give_counts_as_scopes_of_its_own(world, sign_up):
    weak = world.key("keys:write", "tenants:create", "audit:read")
    weak.refused("POST", KEYS, SIGN_UP, expect=403, code="forbidden")
    assert sign_up.shown["id"] not in str(weak("GET", f"{KEYS}?limit=200"))
    for method, what in (("GET", ""), ("POST", "/replace"), ("DELETE", "")):
        weak.refused(method, sign_up.path + what, expect=404, code="not_found")
    strong = world.key("keys:write", "tenants:create", "credentials:issue")
    strong("POST", KEYS, SIGN_UP, expect=201)
    strong("POST", f"{sign_up.path}/replace", expect=201)
    strong("DELETE", sign_up.path, expect=204)


DAY = dt.timedelta(hours=24)
MOMENT = dt.timedelta(microseconds=1)


def test_a_delegating_key_makes_sees_and_revokes_keys_of_a_tenant_for_24_hours(world, sign_up):
    noon = dt.datetime.now(dt.UTC)
    with time_machine.travel(noon, tick=False):
        tenant = sign_up.tenant()
    with time_machine.travel(noon + DAY - MOMENT, tick=False):
        made = sign_up.worker(tenant)
        assert sign_up.listed() == [made["id"]]
    with time_machine.travel(noon + DAY, tick=False):
        sign_up.worker(tenant, expect=404)
        assert sign_up.listed() == []
        for method in ("GET", "DELETE"):
            sign_up.api.refused(method, f"{KEYS}/{made['id']}", expect=404, code="not_found")
        assert works(world.admin, made)


def test_the_24_hours_are_over_when_the_wait_for_a_lock_took_so_long(world, sign_up, monkeypatch):
    """They are compared with the clock in the transaction that stores the key, once the tenant
    is locked.
    """
    from app.identity import api_keys  # noqa: PLC0415

    tenant, lock_tenant = sign_up.tenant(), api_keys.tenant_of
    with time_machine.travel(
        dt.datetime.now(dt.UTC) + DAY - dt.timedelta(minutes=1), tick=False
    ) as clock:

        def lock_for_long(*args, **kwargs):
            locked = lock_tenant(*args, **kwargs)
            clock.shift(dt.timedelta(minutes=1))
            return locked

        sign_up.worker(tenant)
        monkeypatch.setattr(api_keys, "tenant_of", lock_for_long)
        sign_up.worker(tenant, expect=404)


# --- leaks and renewals ---


def test_revoking_the_maker_of_a_delegating_key_revokes_both_and_what_they_made(world):
    scopes = ["tenants:create", "keys:write", "credentials:issue"]
    maker = world.admin("POST", KEYS, {"name": "maker", "scopes": scopes}, expect=201)
    sign_up = SignUp(world, world.admin.with_key(maker["key"])("POST", KEYS, SIGN_UP, expect=201))
    tenant = sign_up.tenant()
    made = sign_up.worker(tenant)
    assert world.admin("GET", sign_up.path)["made"]["keys"] == 1
    world.admin("DELETE", f"{KEYS}/{maker['id']}", expect=204)
    assert world.admin("GET", f"/v1/tenants/{tenant['id']}")["status"] == "active"
    assert not works(world.admin, made)
    sign_up.api.refused("GET", KEYS, expect=401, code="unauthenticated")


def test_renewing_a_delegating_key_loses_no_key_and_no_tenant(world, sign_up):
    tenant = sign_up.tenant()
    made, successor = sign_up.worker(tenant), sign_up.replace()
    assert successor.shown["may_give"] == ["credentials:issue"]
    in_grace = sign_up.tenant()
    sign_up.worker(tenant)
    latest = successor.replace()
    world.admin("DELETE", sign_up.path, expect=204)
    assert works(world.admin, made)
    for newer, of_tenant in product((successor, latest), (tenant, in_grace)):
        assert works(world.admin, newer.worker(of_tenant))
    assert made["id"] in latest.listed()


def test_of_how_many_tenants_a_delegating_keys_family_could_read_the_registration_token(
    world, sign_up
):
    reader = SignUp(world, may_give=["connections:read"])
    for one in (sign_up, reader):
        one.tenant()
    successor = reader.replace()
    successor.tenant()
    for service, count in ((sign_up, 0), (reader, 1), (successor, 2)):
        assert world.admin("GET", service.path)["made"]["registrations"] == count
    world.admin("DELETE", successor.path, expect=204)
    event = world.audit(action="api_key.revoked")[0]
    assert event["details"]["registrations"] == 2
