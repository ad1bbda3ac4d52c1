"""What a tenant sees of the actors in its audit events: what is allowed, and nothing else."""

import pytest

from app.audit import Actor, Event
from app.audit.log import AuditLog, EventFilter
from app.audit.visibility import details_for_tenant
from app.ids import new_id
from app.store.database import SYSTEM
from app.store.models import ApiKey, AuditEvent
from tests.support.rows import tenant_row

ID = str(new_id())
NAME, REQUEST, ADDRESS = "Jane Doe", "r-1", "203.0.113.9"
DETAILS = {"reason": "ticket 4711", "status": "suspended"}
EVERYTHING = (ID, NAME, REQUEST, ADDRESS, DETAILS)
VENDORS = (ID, "the vendor", REQUEST, None, DETAILS | {"reason": None})
NOTHING = (None, "the vendor", None, None, {})


@pytest.fixture
def shown_actor(database):
    """`shown_actor(tenant_id, kind, scope=…)`: what a key with this scope sees of an event of such
    an actor.
    """
    log = AuditLog(database)

    def look(tenant_id, kind, *, scope, actor_id=ID):
        actor = Actor(kind, actor_id, NAME, REQUEST, ADDRESS)
        event = Event(actor, "tests.wrote", dict(DETAILS), tenant_id=tenant_id)
        with database.write(SYSTEM) as db:
            event.record(db)
        page = log.events(scope, EventFilter(tenant_id=tenant_id), limit=200, after=None)
        shown = next(each for each in page.items if each.id == event.id)
        assert shown.actor_kind == kind
        return facts(shown)

    return look


def facts(event):
    return (event.actor_id, event.actor_name, event.request_id, event.client_address, event.details)


def test_details_without_a_reason_are_shown_as_they_are():
    event = AuditEvent(actor_kind="operator", details={"status": "deleted"})
    assert details_for_tenant(event, is_own_key=False) == {"status": "deleted"}


@pytest.mark.parametrize(
    ("kind", "visible"),
    [
        ("worker", EVERYTHING),
        ("registration", EVERYTHING),
        ("onboarding_link", EVERYTHING),
        ("operator", VENDORS),
        ("api_key", VENDORS),
        ("workload", NOTHING),  # no kind that there is today
    ],
)
def test_a_tenant_sees_of_an_actor_what_is_allowed_for_its_kind(
    database, shown_actor, kind, visible
):
    tenant_id = tenant_row(database)
    assert shown_actor(tenant_id, kind, scope=tenant_id) == visible
    assert shown_actor(tenant_id, kind, scope=None) == EVERYTHING


def test_what_a_tenant_sees_of_an_event_does_not_depend_on_the_events_before_it(
    database, shown_actor
):
    tenant_id = tenant_row(database)
    for kind in ("operator", "worker", "api_key"):
        shown_actor(tenant_id, kind, scope=None)
    events = EventFilter(tenant_id=tenant_id)
    page = AuditLog(database).events(tenant_id, events, limit=3, after=None)
    assert [facts(event) for event in page.items] == [VENDORS, EVERYTHING, VENDORS]


def test_a_tenant_sees_everything_of_its_own_keys_and_of_no_other_actor_with_their_id(
    database, shown_actor
):
    tenant_id, own = tenant_row(database), new_id()
    key = ApiKey(
        id=own, lookup=own.hex[-16:], digest=own.bytes, name=NAME, scope_bits=0, tenant_id=tenant_id
    )
    with database.write(SYSTEM) as db:
        db.add(key)
    own_id = {"scope": tenant_id, "actor_id": str(own)}
    assert shown_actor(tenant_id, "api_key", **own_id) == (str(own), *EVERYTHING[1:])
    assert shown_actor(tenant_id, "workload", **own_id) == NOTHING
