"""API keys: made no stronger than their maker, shown once, stopped at once."""

import datetime as dt
import re

from sqlalchemy import select

from app.store.models import ApiKey
from tests.support.cast import World


def in_hours(hours: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)).isoformat()


def make(world: World, by=None, *, expect: int = 201, **fields):
    wanted = {"name": "a program", "scopes": ["tenants:read"], **fields}
    return (by or world.admin)("POST", "/v1/api-keys", wanted, expect=expect)


def test_a_key_is_shown_once_and_kept_as_a_hash(world: World):
    made = make(world)
    assert set(made) == {
        *("id", "name", "scopes", "tenant_id", "may_give", "permission_sets", "made_by", "made"),
        *("expires_at", "created_at", "last_used_at", "key"),
    }
    assert re.fullmatch(r"dpk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", made["key"])
    for path in ("/v1/api-keys", f"/v1/api-keys/{made['id']}"):
        shown = world.admin.raw("GET", path).text
        assert (made["key"][21:] in shown, '"key"' in shown, "digest" in shown) == (False,) * 3
    with world.admin.app.extensions["deputy"].db.read() as db:
        row = db.scalars(select(ApiKey).where(ApiKey.lookup == made["key"][4:20])).one()
    assert made["key"][21:] not in repr(vars(row))
    assert made["key"] not in str(world.audit(action="api_key.created"))


def test_a_new_key_works_and_a_revoked_one_does_not_and_both_are_in_the_audit_log(world: World):
    tenant = world.tenant()
    made = make(world, tenant_id=tenant["id"])
    program, path = world.admin.with_key(made["key"]), f"/v1/api-keys/{made['id']}"
    program("GET", "/v1/tenants")
    world.admin("DELETE", path, expect=204)
    program.refused("GET", "/v1/tenants", expect=401, code="unauthenticated")
    for method in ("GET", "DELETE"):
        world.admin.refused(method, path, expect=404, code="not_found")
    events = [
        e
        for e in world.audit(tenant_id=tenant["id"])
        if e["details"].get("api_key_id") == made["id"]
    ]
    assert [event["action"] for event in events] == ["api_key.revoked", "api_key.created"]


def test_an_expiry_lies_ahead_and_has_a_zone(world: World):
    for expires_at in (
        "2020-01-01T00:00:00Z",
        "2026-01-01",
        "soon",
        7,
        "0001-01-01T00:00:00+23:00",
    ):
        assert "expires_at" in make(world, expires_at=expires_at, expect=422)["errors"]
