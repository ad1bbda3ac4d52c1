"""Webhook endpoints over the API: what is answered, and who may see and do what."""

from uuid import UUID, uuid4

import pytest

from app.audit.actions import WEBHOOK_TYPES
from app.store.models import WebhookEndpoint

URL = "https://app.example.com/webhooks/deputy"
ALL = "/v1/webhook-endpoints"
pytestmark = pytest.mark.usefixtures("names")


def made(api, **body):
    return api("POST", ALL, {"url": URL, "types": ["*"]} | body, expect=201)


def test_an_endpoints_life(world):
    created = made(world.admin, types=["tenant.created", "connection.verified"], description="ours")
    path = f"{ALL}/{created['id']}"
    assert created["secret"].startswith("whsec_")
    assert created["types"] == ["connection.verified", "tenant.created"]
    read = world.admin("GET", path)
    assert read == {name: value for name, value in created.items() if name != "secret"}
    assert read in world.admin("GET", ALL)["items"]
    changed = world.admin(
        "PATCH", path, {"status": "disabled", "url": "https://other.example.com/"}
    )
    assert (changed["status"], changed["disabled_because"]) == ("disabled", "asked")
    world.admin.refused("POST", f"{path}/test", expect=409, code="conflict")
    assert world.admin("PATCH", path, {"status": "enabled"})["missed"] == 0
    secret = world.admin("POST", f"{path}/rotate-secret", {})["secret"]
    assert secret != created["secret"]
    world.admin.refused("POST", f"{path}/rotate-secret", {}, expect=409, code="conflict")
    sent = world.admin("POST", f"{path}/test", expect=202)
    [delivery] = world.admin("GET", f"{path}/deliveries")["items"]
    assert (delivery["event_id"], delivery["status"]) == (sent["event_id"], "pending")
    redeliver = f"{path}/deliveries/{delivery['id']}/redeliver"
    world.admin("POST", redeliver, expect=202)
    world.admin("DELETE", path, expect=204)
    world.admin.refused("GET", path, expect=404, code="not_found")
    [event] = world.audit(action="webhook_endpoint.deleted")[:1]
    assert event["details"] == {"webhook_endpoint_id": created["id"]}


def test_a_secret_is_sealed_and_in_no_other_answer(world):
    created = made(world.admin)
    with world.services.db.read() as db:
        row = db.get(WebhookEndpoint, UUID(created["id"]))
    assert created["secret"].removeprefix("whsec_").encode() not in row.secret
    text = world.admin.raw("GET", f"{ALL}/{created['id']}").text
    assert "whsec_" not in text


def test_another_tenants_endpoint_is_as_one_that_does_not_exist(world):
    mine, other = world.tenant(), world.tenant()
    theirs = made(world.key("webhooks:write", tenant=other))
    vendors = made(world.admin)
    key = world.key("webhooks:write", tenant=mine)
    own = made(key)
    assert own["tenant_id"] == mine["id"]
    assert [endpoint["id"] for endpoint in key("GET", ALL)["items"]] == [own["id"]]
    key.refused(
        "POST",
        ALL,
        {"url": URL, "types": ["*"], "tenant_id": other["id"]},
        expect=404,
        code="not_found",
    )
    for endpoint in (theirs["id"], vendors["id"], str(uuid4())):
        path = f"{ALL}/{endpoint}"
        for method, what, body in (
            ("GET", "", None),
            ("PATCH", "", {"types": ["*"]}),
            ("DELETE", "", None),
            ("GET", "/deliveries", None),
            ("POST", "/test", None),
            ("POST", "/rotate-secret", {}),
            ("POST", "/recover", {"since": "2026-11-28T00:00:00Z"}),
            ("POST", f"/deliveries/{uuid4()}/redeliver", None),
        ):
            sent = {} if body is None else {"body": body}
            key.refused(method, path + what, **sent, expect=404, code="not_found")


def test_a_key_that_is_revoked_takes_its_endpoints_with_it(world):
    """A thief may have made one to listen."""
    tenant = world.tenant()
    wanted = {"name": "x", "scopes": ["webhooks:write", "keys:write"], "tenant_id": tenant["id"]}
    maker = world.admin("POST", "/v1/api-keys", wanted, expect=201)
    stolen = world.admin.with_key(maker["key"])
    child = stolen("POST", "/v1/api-keys", wanted, expect=201)
    endpoints = [made(stolen), made(world.admin.with_key(child["key"]))]
    world.admin("DELETE", f"/v1/api-keys/{maker['id']}", expect=204)
    for endpoint in endpoints:
        found = world.admin("GET", f"{ALL}/{endpoint['id']}")
        assert (found["status"], found["disabled_because"]) == ("disabled", "revoked")
    [event] = world.audit(action="api_key.revoked", tenant_id=tenant["id"])
    assert event["details"]["webhook_endpoints_disabled"] == 2
    assert event["details"]["webhook_endpoint_ids"] == sorted(one["id"] for one in endpoints)


@pytest.mark.parametrize(
    ("method", "path", "body", "paused"),
    [
        ("PATCH", "", {"url": "https://other.example.com/"}, False),
        ("POST", "/rotate-secret", {}, False),
        ("POST", "/rotate-secret", {}, True),
    ],
)
def test_a_key_that_is_revoked_disables_the_endpoints_that_it_changed(
    world, method, path, body, paused
):
    """A thief may listen at the URL, or sign events with the secret."""
    endpoint, others = made(world.admin), made(world.admin)
    one = f"{ALL}/{endpoint['id']}"
    wanted = {"name": "x", "scopes": ["webhooks:write"]}
    stolen = world.admin("POST", "/v1/api-keys", wanted, expect=201)
    thief = world.admin.with_key(stolen["key"])
    thief(method, one + path, body)
    if paused:  # so that it looks as if the vendor had paused it
        thief("PATCH", one, {"status": "disabled"})
    thief("PATCH", f"{ALL}/{others['id']}", {"description": "harmless"})
    world.admin("DELETE", f"/v1/api-keys/{stolen['id']}", expect=204)
    assert world.admin("GET", one)["disabled_because"] == ("asked" if paused else "revoked")
    problem = world.admin.refused("PATCH", one, {"status": "enabled"}, expect=409, code="conflict")
    assert "revoked" in problem["detail"]
    world.admin("POST", f"{one}/rotate-secret", {})
    world.admin("PATCH", one, {"status": "enabled", "url": endpoint["url"]})
    assert world.admin("GET", f"{ALL}/{others['id']}")["status"] == "enabled"
    for each in (endpoint, others):
        world.admin("DELETE", f"{ALL}/{each['id']}", expect=204)


def test_an_audit_event_names_the_host_of_a_url_and_not_its_path(world):
    endpoint = made(world.admin, url="https://app.example.com/a-secret?and=another")
    [event] = world.audit(action="webhook_endpoint.created")[:1]
    assert event["details"]["host"] == "app.example.com"
    assert "a-secret" not in str(event)
    world.admin("DELETE", f"{ALL}/{endpoint['id']}", expect=204)


def test_a_successor_inherits_endpoints(world):
    wanted = {"name": "x", "scopes": ["webhooks:write"]}
    old = world.admin("POST", "/v1/api-keys", wanted, expect=201)
    endpoint = made(world.admin.with_key(old["key"]))
    new = world.admin("POST", f"/v1/api-keys/{old['id']}/replace", {}, expect=201)
    world.admin("DELETE", f"/v1/api-keys/{old['id']}", expect=204)
    assert world.admin("GET", f"{ALL}/{endpoint['id']}")["status"] == "enabled"
    world.admin("DELETE", f"/v1/api-keys/{new['id']}", expect=204)
    assert world.admin("GET", f"{ALL}/{endpoint['id']}")["status"] == "disabled"


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.com/",
        "https://app.example.com:8443/",
        "https://nobody.example.com/",
        "https://127.0.0.1/",
        "https://private.example.com/",
        "https://user@app.example.com/",
        "https://app.example.com/#x",
        "ftp://app.example.com/",
        "not a url",
    ],
)
def test_a_url_that_may_not_be_called_is_refused_by_its_field(world, names, url):
    """tests/outbound has sixty of them."""
    names["private.example.com"] = ["10.0.0.1"]
    for api in (world.admin, world.key("webhooks:write", tenant=world.tenant())):
        answer = api.refused(
            "POST", ALL, {"url": url, "types": ["*"]}, expect=422, code="validation_failed"
        )
        assert list(answer["errors"]) == ["url"]


def test_private_absent_and_mixed_names_get_the_same_words(world, names):
    names["private.example.com"] = ["10.0.0.1"]
    names["mixed.example.com"] = ["93.184.215.14", "169.254.169.254"]
    words = {
        str(
            world.admin(
                "POST", ALL, {"url": f"https://{name}.example.com/", "types": ["*"]}, expect=422
            )["errors"]
        )
        for name in ("private", "absent", "mixed")
    }
    assert len(words) == 1


def test_a_tenant_has_five_endpoints(world):
    key = world.key("webhooks:write", tenant=world.tenant())
    for _ in range(5):
        made(key)
    key.refused("POST", ALL, {"url": URL, "types": ["*"]}, expect=429, code="rate_limited")


def test_types_are_those_that_are_listed(world):
    listed = world.admin("GET", "/v1/event-types")["items"]
    assert [each["type"] for each in listed] == [*WEBHOOK_TYPES]
    for each in listed:
        assert each["description"]
        assert each["details"]["type"] == "object"
    for types in ([], ["credentials.issued"], ["x"], "*"):
        world.admin.refused(
            "POST", ALL, {"url": URL, "types": types}, expect=422, code="validation_failed"
        )
