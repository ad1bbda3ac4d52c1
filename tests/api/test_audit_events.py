"""Reading the audit log."""

from datetime import timedelta
from uuid import UUID

import pytest

from app.clock import now
from app.ids import first_id_at
from app.store.database import SYSTEM
from app.store.models import AuditEvent
from tests.support.cast import World, path_of


def test_an_event_tells_who_what_when_and_whose(world: World):
    tenant = world.tenant()
    event = world.audit(tenant_id=tenant["id"], action="tenant.created")[0]
    assert list(event) == [
        "id",
        "at",
        "action",
        "outcome",
        "actor",
        "tenant_id",
        "connection_id",
        "request_id",
        "client_address",
        "details",
    ]
    assert event["actor"]["kind"] == "api_key"
    assert event["actor"]["name"] == "tests' admin"
    assert event["details"]["name"] == tenant["name"]


def test_filters_narrow_and_times_are_half_open(world: World):
    connection = world.proven()
    events = world.audit(connection_id=connection["id"])
    assert {event["connection_id"] for event in events} == {connection["id"]}
    newest, oldest = events[0], events[-1]
    at = newest["at"].replace("+", "%2B")
    since = world.audit(connection_id=connection["id"], since=at)
    until = world.audit(connection_id=connection["id"], until=at)
    assert newest in since
    assert newest not in until
    assert oldest in until


def test_a_session_and_a_key_are_looked_for_within_ones_own_tenant(world: World):
    """A key that is bound to a tenant finds the vendor's key in its own events, and another
    tenant's session never.
    """
    mine, others = world.connection(), world.connection()
    worker = world.key("credentials:issue")
    sessions = [
        worker("POST", path_of(one, "/credentials"))["AccessKeyId"] for one in (mine, others)
    ]
    issued = [
        world.audit(connection_id=one["id"], action="credentials.issued")[0]["id"]
        for one in (mine, others)
    ]
    reader = world.key("audit:read", tenant={"id": mine["tenant_id"]})

    def ids(api, query: str) -> list[str]:
        return [event["id"] for event in api("GET", f"/v1/audit-events?{query}")["items"]]

    assert [ids(world.admin, f"access_key_id={session}") for session in sessions] == [
        [issued[0]],
        [issued[1]],
    ]
    assert [ids(reader, f"access_key_id={session}") for session in sessions] == [[issued[0]], []]
    actor = world.audit(access_key_id=sessions[0])[0]["actor"]["id"]
    assert ids(world.admin, f"api_key_id={actor}") == issued[::-1]
    assert ids(world.admin, f"api_key_id={actor}&tenant_id={others['tenant_id']}") == issued[1:]
    assert ids(reader, f"api_key_id={actor}") == issued[:1]


def test_pages_of_the_log_join_without_gap_or_repeat(world: World, settled_events):
    tenant, _ = settled_events
    whole, pages, cursor = world.audit(tenant_id=tenant["id"]), [], ""
    assert len(whole) == 6
    while cursor is not None:
        page = world.admin("GET", f"/v1/audit-events?tenant_id={tenant['id']}&limit=2{cursor}")
        pages += page["items"]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert pages == whole


BEGINNING = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def settled_events(world: World):
    """A tenant's five events of half a minute ago, the oldest first; and one of now."""
    tenant = world.tenant()
    began = now() - timedelta(seconds=30)
    ids = [
        UUID(int=first_id_at(began + timedelta(seconds=number)).int | number) for number in range(5)
    ]
    with world.admin.app.extensions["deputy"].db.write(SYSTEM) as db:
        for number, event_id in enumerate(ids):
            made = {
                "action": f"tests.n{number}",
                "outcome": "ok",
                "actor_kind": "operator",
                "details": {},
            }
            db.add(
                AuditEvent(id=event_id, tenant_id=UUID(tenant["id"]), actor_name="tests", **made)
            )
    return tenant, [str(event_id) for event_id in ids]


def test_after_an_event_the_log_goes_on_oldest_first(world: World, settled_events):
    tenant, ids = settled_events
    path = f"/v1/audit-events?tenant_id={tenant['id']}"
    assert [
        event["id"] for event in world.admin("GET", f"{path}&after={BEGINNING}")["items"]
    ] == ids
    after, seen = BEGINNING, []
    while items := world.admin("GET", f"{path}&after={after}&limit=2")["items"]:
        after = items[-1]["id"]
        seen += [event["action"] for event in items]
    assert seen == [f"tests.n{number}" for number in range(5)], (
        "what has just happened has not settled"
    )
    assert world.admin("GET", path)["items"][0]["action"] == "tenant.created"


def test_a_feed_has_cursors_as_well(world: World, settled_events):
    tenant, ids = settled_events
    path = f"/v1/audit-events?tenant_id={tenant['id']}&after={ids[0]}&limit=3"
    first = world.admin("GET", path)
    assert [event["id"] for event in first["items"]] == ids[1:4]
    second = world.admin("GET", f"{path}&cursor={first['next_cursor']}")
    assert ([event["id"] for event in second["items"]], second["next_cursor"]) == (ids[4:], None)
    other = f"/v1/audit-events?tenant_id={tenant['id']}&after={ids[1]}&limit=3"
    world.admin.refused(
        "GET", f"{other}&cursor={first['next_cursor']}", expect=400, code="malformed_request"
    )


def test_a_bound_key_has_a_feed_of_its_own_tenant(world: World, settled_events):
    tenant, ids = settled_events
    reader = world.key("audit:read", tenant=tenant)
    assert [
        event["id"] for event in reader("GET", f"/v1/audit-events?after={BEGINNING}")["items"]
    ] == ids
    stranger = world.key("audit:read", tenant=world.tenant())
    assert stranger("GET", f"/v1/audit-events?after={BEGINNING}")["items"] == []
    assert stranger("GET", f"/v1/audit-events?after={ids[0]}")["items"] == []
