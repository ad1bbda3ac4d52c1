"""What the vendor has stopped, a tenant's key can't start again; and the vendor's reasons stay its own."""

import json

import pytest

from app.access.callers import Scope
from tests.support.cast import Api, World, path_of

REASON = {"reason": "unpaid since spring, see ticket 4711"}


@pytest.fixture
def connection(world: World) -> dict:
    return world.connection()


@pytest.fixture
def mallory(world: World, connection) -> Api:
    """A key of the tenant's with every scope."""
    return world.key(*Scope, tenant={"id": connection["tenant_id"]})


def paths(connection: dict) -> dict[str, str]:
    return {"tenant": f"/v1/tenants/{connection['tenant_id']}", "connection": path_of(connection)}


@pytest.mark.parametrize("what", ["tenant", "connection"])
def test_what_the_vendor_suspended_a_bound_key_does_not_resume(world: World, connection, mallory, what):
    path = paths(connection)[what]
    world.admin("POST", f"{path}/suspend", REASON)
    mallory.refused("POST", f"{path}/resume", {"reason": "please"}, expect=409, code="conflict")
    assert world.admin("GET", path)["status"] == "suspended"
    mallory.refused("POST", path_of(connection, "/credentials"), expect=409, code="suspended")
    world.admin("POST", f"{path}/resume", {"reason": "paid"})


@pytest.mark.parametrize("what", ["tenant", "connection"])
def test_what_a_bound_key_suspended_a_bound_key_resumes_and_so_does_the_vendor(world: World, connection, mallory, what):
    path = paths(connection)[what]
    for resumer in (mallory, world.admin):
        mallory("POST", f"{path}/suspend", {"reason": "a drill"})
        assert resumer("POST", f"{path}/resume", {"reason": "over"})["status"] in {"active", "verified"}


@pytest.mark.parametrize("what", ["tenant", "connection"])
def test_a_bound_key_that_suspends_first_does_not_keep_the_vendor_from_it(world: World, connection, mallory, what):
    path = paths(connection)[what]
    mallory("POST", f"{path}/suspend", {"reason": "so that nobody else can"})
    world.admin("POST", f"{path}/suspend", REASON)
    assert world.admin("GET", path)["suspended"]["reason"] == REASON["reason"]
    assert mallory("GET", path)["suspended"]["reason"] is None
    mallory.refused("POST", f"{path}/resume", {"reason": "please"}, expect=409, code="conflict")
    for again in (mallory, world.admin):
        again.refused("POST", f"{path}/suspend", {"reason": "twice"}, expect=409, code="conflict")
    world.admin("POST", f"{path}/resume", {"reason": "paid"})


def test_a_suspended_connection_is_not_deleted_and_added_again_instead(world: World, connection, mallory):
    world.admin("POST", path_of(connection, "/suspend"), REASON)
    mallory.refused("DELETE", path_of(connection), expect=409, code="conflict")
    again = f"/v1/tenants/{connection['tenant_id']}/connections"
    mallory.refused("POST", again, {"role_arn": connection["role_arn"]}, expect=409, code="conflict")
    world.admin("DELETE", path_of(connection), expect=204)


def test_a_bound_key_is_not_shown_why_the_vendor_suspended(world: World, connection, mallory):
    for path in paths(connection).values():
        world.admin("POST", f"{path}/suspend", REASON)
        shown = mallory("GET", path)["suspended"]
        assert (shown["by"], shown["reason"]) == ("api_key", None)
        assert world.admin("GET", path)["suspended"]["reason"] == REASON["reason"]
    lists = (f"/v1/tenants/{connection['tenant_id']}/connections", "/v1/tenants")
    assert all(REASON["reason"] not in json.dumps(mallory("GET", path)) for path in lists)


def test_a_bound_key_is_shown_the_reason_that_a_bound_key_gave(connection, mallory):
    mallory("POST", path_of(connection, "/suspend"), {"reason": "a drill"})
    assert mallory("GET", path_of(connection))["suspended"]["reason"] == "a drill"


# --- rotations ---


@pytest.fixture
def rotation(connection) -> str:
    """The path of the tenant's rotation."""
    return f"/v1/tenants/{connection['tenant_id']}/external-id/rotation"


EMERGENCY = REASON | {"emergency": True}


@pytest.mark.parametrize("wanted", [REASON, EMERGENCY], ids=["rotation", "emergency"])
def test_what_the_vendor_began_to_replace_a_bound_key_does_not_abandon(
    world: World, connection, mallory, rotation, wanted
):
    """In an emergency, what the External ID opens would be issued again."""
    world.admin("POST", rotation, wanted, expect=201)
    mallory.refused("DELETE", rotation, expect=409, code="conflict")
    assert world.admin("GET", rotation)["state"] == "open"
    if wanted is EMERGENCY:
        mallory.refused("POST", path_of(connection, "/credentials"), expect=409, code="external_id_withdrawn")
    world.admin("DELETE", rotation, expect=204)


@pytest.mark.parametrize("first", [{"reason": "a drill"}, {"reason": "a drill", "emergency": True}])
def test_a_bound_key_abandons_what_a_bound_key_began_until_the_vendor_makes_it_an_emergency(
    world: World, mallory, rotation, first
):
    for abandons in (mallory, world.admin):
        mallory("POST", rotation, first, expect=201)
        abandons("DELETE", rotation, expect=204)
    mallory("POST", rotation, first, expect=201)
    for _ in range(2):
        world.admin("POST", rotation, EMERGENCY)
        mallory("POST", rotation, first | {"emergency": True})
        mallory.refused("DELETE", rotation, expect=409, code="conflict")
    made = world.audit(action="rotation.made_emergency", tenant_id=rotation.split("/")[3])
    assert [event["details"]["reason"] for event in made] == [REASON["reason"]]
    world.admin("DELETE", rotation, expect=204)


# --- the audit log that a bound key reads ---


FEED = "&after=00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("order", ["", FEED], ids=["newest first", "feed"])
def test_a_bound_key_does_not_read_the_vendors_words_in_the_audit_log(
    world: World, connection, mallory, order, monkeypatch
):
    monkeypatch.setattr("app.audit.log.LONGEST", -3600)  # the feed shows at once what was just made
    vendors = world.key(*Scope, name="Jane Doe's laptop")
    vendors("POST", path_of(connection, "/credentials"), {"reason": "incident 7"})
    vendors("POST", path_of(connection, "/suspend"), REASON)
    world.admin.app.test_cli_runner().invoke(args=["registrations", "void", connection["tenant_id"]])
    path = f"/v1/audit-events?limit=200&tenant_id={connection['tenant_id']}{order}"
    seen = mallory("GET", path)["items"]
    full = {event["id"]: event for event in world.admin("GET", path)["items"]}
    text = json.dumps(seen)
    assert [word for word in ("Jane Doe", "tests' admin", "incident 7", REASON["reason"]) if word in text] == []
    kinds = set()
    for event in seen:
        kinds.add(event["actor"]["kind"])
        assert (event["actor"]["name"], event["client_address"]) == ("the vendor", None)
        assert event["action"] == full[event["id"]]["action"]
    assert kinds == {"api_key", "operator"}
    assert {"Jane Doe's laptop", "tests' admin"} <= {event["actor"]["name"] for event in full.values()}
    assert REASON["reason"] in json.dumps(full)


def test_a_bound_key_reads_the_words_of_its_own_tenants_keys(connection, mallory):
    mallory("POST", path_of(connection, "/suspend"), {"reason": "a drill"})
    newest = mallory("GET", "/v1/audit-events?action=connection.suspended")["items"][0]
    assert newest["details"]["reason"] == "a drill"
    assert newest["actor"]["name"] == "a program"
    assert newest["client_address"] == "127.0.0.1"
