"""Onboarding links over the API: made, listed without their tokens, revoked; and audited."""

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import sqlalchemy
import time_machine

from app.clock import now
from app.onboarding.page_links import CONNECTIONS_SHOWN
from app.store.database import SYSTEM
from app.store.models import Connection
from tests.support.cast import path_of
from tests.web.conftest import many, visit


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
        {"return_url": ""},
        {"return_url": "x" * 2049},
        {"return_url": "https://other.example.com/aws"},
        {"return_url": "javascript:alert(1)"},
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
        assert " ".join(item) == (
            "id permission_set region created_at expires_at revoked_at opened_at return_url"
        )
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


def test_a_return_url_is_kept_if_an_entry_allows_it_and_else_refused_with_the_reason(world):
    api, tenant = world.admin, world.tenant()
    own = "https://app.example.com/aws/done?x=1"
    made = api("POST", links_of(tenant), {"return_url": own}, expect=201)
    assert api("GET", f"{links_of(tenant)}/{made['id']}")["return_url"] == own
    for url, reason in (
        ("https://app.example.com/awsome", "an entry of DEPUTY_RETURN_URLS"),
        ("https://app.example.com/aws/../x", "Must be an http:// or https:// URL without user"),
        ("https://app.example.com/aws?status=1", "Must not have the parameter status"),
    ):
        body = {"return_url": url}
        refused = api.refused("POST", links_of(tenant), body, expect=422, code="validation_failed")
        [said] = refused["errors"]["return_url"]
        assert reason in said
        assert said.startswith("Must ")
    assert [link["id"] for link in api("GET", links_of(tenant))["items"]] == [made["id"]]


def test_a_link_says_what_has_become_of_it(world):
    """A form of another site opens nothing, and neither does a page that is only looked at."""
    visitor = visit(world, world.tenant())
    path = f"{links_of(visitor.tenant)}/{visitor.link_id}"

    def state():
        link = world.admin("GET", path)
        return link["status"], link["opened_at"], [each["status"] for each in link["connections"]]

    visitor.raw()
    visitor.raw("/status")
    visitor.paste("x", headers={"Sec-Fetch-Site": "cross-site"})
    world.connection(visitor.tenant)  # not through the link
    assert state() == ("open", None, [])
    visitor.paste("nonsense")
    status, opened_at, connections = state()
    assert (status, connections) == ("open", [])
    assert timedelta(0) <= now() - datetime.fromisoformat(opened_at) < timedelta(minutes=1)
    visitor.paste("123456789012")
    assert state() == ("open", opened_at, ["pending"])
    visitor.paste(world.role(visitor.tenant))
    assert state() == ("connected", opened_at, ["verified", "pending"])
    newest = world.admin("GET", path)["connections"][0]
    listed = visitor.connections()[0]
    assert newest == {name: listed[name] for name in ("id", "role_arn", "account_id", "status")}
    with time_machine.travel(now() + timedelta(days=30)):
        assert state()[0] == "connected"
        world.suspend(listed)
        assert state()[0] == "expired"
    world.admin("DELETE", path_of(listed), expect=204)
    assert state() == ("open", opened_at, ["pending"])
    world.admin("DELETE", path, expect=204)
    assert state()[0] == "revoked"
    world.admin.refused("GET", path.replace(visitor.tenant["id"], world.tenant()["id"]), **ABSENT)


ABSENT = {"expect": 404, "code": "not_found"}


def test_a_link_shows_the_newest_of_its_connections(world):
    visitor = visit(world, world.tenant())
    accounts = many(visitor, count=CONNECTIONS_SHOWN + 1)
    own = sqlalchemy.update(Connection).filter_by(tenant_id=UUID(visitor.tenant["id"]))
    with world.services.db.write(SYSTEM) as db:
        db.execute(own.values(onboarding_link_id=UUID(visitor.link_id)))
    shown = world.admin("GET", f"{links_of(visitor.tenant)}/{visitor.link_id}")["connections"]
    assert [each["account_id"] for each in shown] == accounts[:CONNECTIONS_SHOWN]
