"""Reading the audit log."""

from datetime import timedelta
from uuid import UUID

from app.clock import now
from app.ids import first_id_at
from app.store.database import SYSTEM
from app.store.models import AuditEvent
from tests.support.cast import path_of


def ids(api, query):
    return [event["id"] for event in api("GET", f"/v1/audit-events?{query}")["items"]]


def test_an_event_tells_who_what_when_and_whose_and_times_are_half_open(world):
    connection = world.proven()
    [event] = world.audit(tenant_id=connection["tenant_id"], action="tenant.created")
    assert " ".join(event) == (
        "id at action outcome actor tenant_id connection_id request_id client_address details"
    )
    assert event["actor"]["kind"] == "api_key"
    assert event["actor"]["name"] == "tests' admin"
    assert event["details"]["name"] == connection["tenant_name"]
    events = world.audit(connection_id=connection["id"])
    assert {event["connection_id"] for event in events} == {connection["id"]}
    newest, oldest = events[0], events[-1]
    at = newest["at"].replace("+", "%2B")
    since = world.audit(connection_id=connection["id"], since=at)
    until = world.audit(connection_id=connection["id"], until=at)
    assert newest in since
    assert newest not in until
    assert oldest in until


def test_a_session_and_a_key_are_looked_for_within_ones_own_tenant(world):
    """A key that is bound to a tenant finds the vendor's key in its own events, and another
    tenant's session never.
    """
    mine, others = world.connection(), world.connection()
    worker = world.key("credentials:issue")
    sessions, issued = [], []
    for connection in (mine, others):
        sessions.append(worker("POST", path_of(connection, "/credentials"))["AccessKeyId"])
        issued += ids(world.admin, f"connection_id={connection['id']}&action=credentials.issued")
    reader = world.key("audit:read", tenant={"id": mine["tenant_id"]})
    for session, event, seen_by_reader in zip(sessions, issued, (issued[:1], []), strict=True):
        assert ids(world.admin, f"access_key_id={session}") == [event]
        assert ids(reader, f"access_key_id={session}") == seen_by_reader
    actor = f"api_key_id={world.audit(access_key_id=sessions[0])[0]['actor']['id']}"
    assert ids(world.admin, actor) == issued[::-1]
    assert ids(world.admin, f"{actor}&tenant_id={others['tenant_id']}") == issued[1:]
    assert ids(reader, actor) == issued[:1]


BEGINNING = "00000000-0000-0000-0000-000000000000"


def test_a_feed_goes_on_oldest_first_with_what_has_settled_and_shows_a_bound_key_its_tenants(world):
    """A tenant has five events of half a minute ago, the oldest first. Those of now have not
    settled. A feed has cursors as well.
    """
    tenant, began, event_ids = world.tenant(), now() - timedelta(seconds=30), []
    with world.admin.app.extensions["deputy"].db.write(SYSTEM) as db:
        for number in range(5):
            first_id = first_id_at(began + timedelta(seconds=number))
            event = AuditEvent(
                id=UUID(int=first_id.int | number),
                tenant_id=UUID(tenant["id"]),
                action=f"tests.n{number}",
                outcome="ok",
                actor_kind="operator",
                actor_name="tests",
                details={},
            )
            db.add(event)
            event_ids.append(str(event.id))
    query = f"tenant_id={tenant['id']}"
    assert ids(world.admin, f"{query}&after={BEGINNING}") == event_ids
    after, read = BEGINNING, []
    while page := ids(world.admin, f"{query}&after={after}&limit=2"):
        after = page[-1]
        read += page
    assert read == event_ids
    assert world.audit(tenant_id=tenant["id"])[0]["action"] == "tenant.created"
    path = f"/v1/audit-events?{query}&limit=3&after="
    first = world.admin("GET", path + event_ids[0])
    assert [event["id"] for event in first["items"]] == event_ids[1:4]
    cursor = f"&cursor={first['next_cursor']}"
    second = world.admin("GET", path + event_ids[0] + cursor)
    assert [event["id"] for event in second["items"]] == event_ids[4:]
    assert second["next_cursor"] is None
    world.admin.refused("GET", path + event_ids[1] + cursor, expect=400, code="malformed_request")
    reader, stranger = (world.key("audit:read", tenant=whose) for whose in (tenant, world.tenant()))
    assert ids(reader, f"after={BEGINNING}") == event_ids
    for after in (BEGINNING, event_ids[0]):
        assert ids(stranger, f"after={after}") == []
