"""Onboarding links over the API: made, listed without their tokens, revoked; and audited."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from tests.support.cast import World


def links_of(tenant: dict) -> str:
    return f"/v1/tenants/{tenant['id']}/onboarding-links"


def test_a_link_is_made_with_a_url_and_lasts_thirty_days(world: World):
    tenant = world.tenant()
    made = world.admin("POST", links_of(tenant), {}, expect=201)
    assert set(made) == {"id", "url", "expires_at"}
    assert made["url"].startswith("http://localhost:8000/onboard/")
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=30, minutes=-1) < left <= timedelta(days=30)


def test_a_links_token_is_random_and_only_its_hash_is_stored(world: World):
    tenant = world.tenant()
    tokens = [world.admin("POST", links_of(tenant), {}, expect=201)["url"].rpartition("/")[2] for _ in range(20)]
    assert {len(token) for token in tokens} == {43}
    assert len(set(tokens)) == 20
    with world.admin.app.extensions["deputy"].db.read() as db:
        rows = db.execute(sqlalchemy.text("SELECT * FROM onboarding_links")).all()
        stored = {bytes(row.digest) for row in rows}
    assert {hashlib.sha256(token.encode()).digest() for token in tokens} <= stored
    everything = repr(rows)
    assert not any(token in everything for token in tokens)


@pytest.mark.parametrize("seconds", [60, 7_776_000])
def test_a_link_lasts_as_long_as_asked(world: World, seconds):
    made = world.admin("POST", links_of(world.tenant()), {"expires_in": seconds}, expect=201)
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert abs(left.total_seconds() - seconds) < 30


@pytest.mark.parametrize(
    "body",
    [
        {"expires_in": 59},
        {"expires_in": 7_776_001},
        {"expires_in": "3600"},
        {"expires_in": True},
        {"expires_in": None},
        {"permission_set": "nope"},
        {"region": "eu-nowhere-1"},
        {"region": "cn-north-1"},
        {"token": "chosen-by-me"},
    ],
)
def test_what_can_not_be_shown_is_refused_when_it_is_asked_for(world: World, body):
    problem = world.admin.refused("POST", links_of(world.tenant()), body, expect=422, code="validation_failed")
    assert list(problem["errors"]) == list(body)


def test_the_list_has_every_link_and_no_token(world: World):
    tenant = world.tenant()
    wanted = {"permission_set": "bucket-sync", "region": "eu-west-1"}
    made = [world.admin("POST", links_of(tenant), wanted, expect=201) for _ in range(3)]
    world.admin("DELETE", f"{links_of(tenant)}/{made[0]['id']}", expect=204)
    first = world.admin("GET", f"{links_of(tenant)}?limit=2")
    rest = world.admin("GET", f"{links_of(tenant)}?limit=2&cursor={first['next_cursor']}")
    items = first["items"] + rest["items"]
    assert [item["id"] for item in items] == [link["id"] for link in reversed(made)]
    assert [item["revoked_at"] is not None for item in items] == [False, False, True]
    for item in items:
        assert set(item) == {"id", "permission_set", "region", "created_at", "expires_at", "revoked_at"}
        assert item["permission_set"] == "bucket-sync"
        assert item["region"] == "eu-west-1"


def test_a_revoked_link_can_not_be_revoked_again(world: World):
    tenant = world.tenant()
    made = world.admin("POST", links_of(tenant), {}, expect=201)
    world.admin("DELETE", f"{links_of(tenant)}/{made['id']}", expect=204)
    world.admin.refused("DELETE", f"{links_of(tenant)}/{made['id']}", expect=404, code="not_found")


def test_another_tenants_link_can_not_be_revoked(world: World):
    ours, theirs = world.tenant("Acme"), world.tenant("Globex")
    link = world.admin("POST", links_of(theirs), {}, expect=201)
    world.admin.refused("DELETE", f"{links_of(ours)}/{link['id']}", expect=404, code="not_found")
    assert world.admin("GET", links_of(theirs))["items"][0]["revoked_at"] is None
    assert world.admin("GET", links_of(ours))["items"] == []


def test_a_suspended_tenant_gets_no_link(world: World):
    tenant = world.tenant()
    world.admin("POST", f"/v1/tenants/{tenant['id']}/suspend", {"reason": "unpaid"})
    world.admin.refused("POST", links_of(tenant), {}, expect=409, code="suspended")


def test_making_and_revoking_is_audited_without_the_token(world: World):
    tenant = world.tenant()
    made = world.admin("POST", links_of(tenant), {}, expect=201)
    world.admin("DELETE", f"{links_of(tenant)}/{made['id']}", expect=204)
    revoked, created, *_ = world.audit(tenant_id=tenant["id"])
    assert (created["action"], revoked["action"]) == ("onboarding_link.created", "onboarding_link.revoked")
    for event in (created, revoked):
        assert event["outcome"] == "ok"
        assert event["details"]["onboarding_link_id"] == made["id"]
        assert made["url"].rpartition("/")[2] not in str(event)
