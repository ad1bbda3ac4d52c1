"""Onboarding links over the API: made, listed without their tokens, revoked; and audited."""

import hashlib
from datetime import UTC, datetime

import sqlalchemy


def links_of(tenant):
    return f"/v1/tenants/{tenant['id']}/onboarding-links"


def test_a_link_lasts_thirty_days_or_as_asked_and_only_the_hash_of_its_random_token_is_stored(
    world,
):
    tenant, tokens = world.tenant(), set()
    for body, seconds in (
        ({}, 2_592_000),
        ({"expires_in": 60}, 60),
        ({"expires_in": 7_776_000}, 7_776_000),
    ):
        made = world.admin("POST", links_of(tenant), body, expect=201)
        assert set(made) == {"id", "url", "expires_at"}
        page, _, token = made["url"].rpartition("/")
        assert page == "http://localhost:8000/onboard"
        assert len(token) == 43
        left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
        assert seconds - 60 < left.total_seconds() <= seconds
        query = sqlalchemy.text("SELECT * FROM onboarding_links WHERE digest = :digest")
        with world.admin.app.extensions["deputy"].db.read() as db:
            digest = hashlib.sha256(token.encode()).digest()
            [row] = db.execute(query, {"digest": digest}).all()
        assert token not in repr(row)
        tokens.add(token)
    assert len(tokens) == 3


def test_what_can_not_be_shown_is_refused_when_it_is_asked_for(world):
    tenant = world.tenant()
    for body in (
        {"expires_in": 59},
        {"expires_in": 7_776_001},
        {"expires_in": "3600"},
        {"expires_in": True},
        {"permission_set": "nope"},
        {"region": "eu-nowhere-1"},
        {"region": "cn-north-1"},
        {"token": "chosen-by-me"},
    ):
        problem = world.admin.refused(
            "POST", links_of(tenant), body, expect=422, code="validation_failed"
        )
        assert list(problem["errors"]) == list(body)


def test_the_list_has_every_link_and_no_token(world):
    tenant = world.tenant()
    wanted = {"permission_set": "bucket-sync", "region": "eu-west-1"}
    made = [world.admin("POST", links_of(tenant), wanted, expect=201) for _ in range(3)]
    world.admin("DELETE", f"{links_of(tenant)}/{made[0]['id']}", expect=204)
    first = world.admin("GET", f"{links_of(tenant)}?limit=2")
    rest = world.admin("GET", f"{links_of(tenant)}?limit=2&cursor={first['next_cursor']}")
    items = first["items"] + rest["items"]
    assert rest["next_cursor"] is None
    assert [item["id"] for item in items] == [link["id"] for link in reversed(made)]
    assert [item["revoked_at"] is not None for item in items] == [False, False, True]
    for item in items:
        assert " ".join(item) == "id permission_set region created_at expires_at revoked_at"
        assert item.items() >= wanted.items()


def test_a_link_is_revoked_once_by_its_own_tenant_and_that_is_audited_without_the_token(world):
    tenant, stranger = world.tenant("Acme"), world.tenant("Globex")
    made = world.admin("POST", links_of(tenant), {}, expect=201)
    world.admin.refused(
        "DELETE", f"{links_of(stranger)}/{made['id']}", expect=404, code="not_found"
    )
    assert world.admin("GET", links_of(tenant))["items"][0]["revoked_at"] is None
    assert world.admin("GET", links_of(stranger))["items"] == []
    world.admin("DELETE", f"{links_of(tenant)}/{made['id']}", expect=204)
    world.admin.refused("DELETE", f"{links_of(tenant)}/{made['id']}", expect=404, code="not_found")
    for action in ("onboarding_link.revoked", "onboarding_link.created"):
        [event] = world.audit(tenant_id=tenant["id"], action=action)
        assert event["details"]["onboarding_link_id"] == made["id"]
        assert made["url"].rpartition("/")[2] not in str(event)
