"""Refusals on record: ten of a key in a second are told one by one, the rest in one event, over all processes together."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import sqlalchemy

from app.audit.events import Event
from app.concurrency.gevent import spawn
from app.errors import RateLimitedError, StoreUnavailableError
from app.ids import new_id
from app.limits.refusals import Refusals
from app.store.database import SYSTEM, Database
from app.store.models import AuditEvent, QuotaUse
from tests.support.databases import new_database
from tests.support.rows import ADMIN
from tests.support.waiting import until

NOON = datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)


@dataclass(frozen=True)
class Process:
    db: Database
    refusals: Refusals


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def databases(request):
    with new_database(request.param) as url:
        both = [Database(url) for _ in range(2)]
        yield both
        for database in both:
            database.engine.dispose()


@pytest.fixture
def processes(databases):
    """Two of them, as two gunicorn workers, which have refused nothing yet."""
    with databases[0].write(SYSTEM) as db:
        db.execute(sqlalchemy.delete(QuotaUse))
    both = [Process(database, Refusals(database)) for database in databases]
    yield both
    for process in both:
        process.refusals.flush()


@pytest.fixture
def key():
    return replace(ADMIN, key_id=new_id(), tenant_id=None)


@pytest.fixture(autouse=True)
def stands_still(monkeypatch):
    """Nothing is stored by itself: the second lasts until a test says otherwise. And the bounds are those of life."""
    monkeypatch.setattr("app.limits.refusals.SINGLY", 10)
    monkeypatch.setattr("app.limits.refusals.MOST", 200)
    monkeypatch.setattr("app.limits.refusals.OF_TENANT", 20)
    monkeypatch.setattr("app.limits.refusals.spawn", lambda *_: None)


def refuse(services, key, seconds=0.0, *, code="forbidden", tenant_id=None):
    """One refusal; whether the answer stands."""
    event = Event(key.actor, "tenant.refused", {"code": code}, outcome="refused", at=NOON + timedelta(seconds=seconds))
    try:
        services.refusals.record(key.key_id, tenant_id, event)
    except RateLimitedError as error:
        return error.retry_after != 1
    return True


def events(services, key, action=None):
    query = sqlalchemy.select(AuditEvent).where(AuditEvent.actor_id == str(key.key_id)).order_by(AuditEvent.id)
    with services.db.read() as db:
        found = list(db.scalars(query))
    return [event for event in found if action in {None, event.action}]


def test_ten_of_a_second_are_recorded_singly_and_the_rest_as_one_event_of_each_process(processes, key):
    for turn in range(60):
        assert refuse(processes[turn % 2], key, code="forbidden" if turn % 3 else "not_found")
    for services in processes:
        services.refusals.flush()
    found = events(processes[0], key)
    assert Counter(event.action for event in found) == {"tenant.refused": 10, "request.refused": 2}
    assert sum(event.details["count"] for event in found[10:]) == 50
    codes = Counter(event.details["code"] for event in found[:10])
    for event in found[10:]:
        codes += Counter(event.details["codes"])
        assert (event.outcome, event.actor_kind, event.request_id) == ("refused", "api_key", None)
    assert codes == {"forbidden": 40, "not_found": 20}
    assert {event.at for event in found} == {NOON}, "all of it is told of the second in which it was"


def test_many_threads_of_both_processes_at_once_record_no_more_than_ten(processes, key):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda turn: refuse(processes[turn % 2], key), range(300)))
    for services in processes:
        services.refusals.flush()
    assert Counter(answers) == {True: 200, False: 100}
    assert len(events(processes[0], key, "tenant.refused")) == 10
    assert sum(event.details["count"] for event in events(processes[0], key, "request.refused")) == 190


def test_each_second_and_each_key_has_refusals_of_its_own(processes, key):
    for _ in range(250):
        refuse(processes[0], key)
    other = replace(ADMIN, key_id=new_id())
    for services in processes:
        assert not refuse(services, key)
        assert refuse(services, other)
        assert refuse(services, key, 1)
    assert len(events(processes[0], key, "tenant.refused")) == 12


def test_a_second_is_counted_on_while_the_next_has_begun(processes, key):
    """Machines' clocks differ, and an event is made before it is counted."""
    one, other = processes
    for turn in range(40):
        refuse(one, key, turn % 2)
        refuse(other, key, 1 - turn % 2)
    singly = Counter(event.at for event in events(one, key, "tenant.refused"))
    assert singly == {NOON: 10, NOON + timedelta(seconds=1): 10}


def test_a_clock_that_is_behind_by_far_is_never_told_too_often(processes, key):
    refuse(processes[0], key, 3600)
    assert all(refuse(processes[1], key) for _ in range(300))
    processes[1].refusals.flush()
    (rest,) = events(processes[1], key, "request.refused")
    assert rest.details["count"] == 300


def test_a_flood_of_refusals_asks_the_database_a_few_times(processes, key):
    statements = []
    sqlalchemy.event.listen(processes[0].db.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for _ in range(1000):
        refuse(processes[0], key)
    assert sum("INSERT INTO quota_uses" in statement for statement in statements) <= 20


def test_the_tenant_of_a_bound_key_sees_what_became_of_a_flood(processes, key):
    tenant = new_id()
    for _ in range(20):
        refuse(processes[0], key, tenant_id=tenant)
    processes[0].refusals.flush()
    assert [event.tenant_id for event in events(processes[0], key)] == [None] * 10 + [tenant]


def test_the_keys_of_a_tenant_are_told_singly_twenty_times_in_a_second_together(processes, stopped_clock):
    tenant, other, keys = new_id(), new_id(), [replace(ADMIN, key_id=new_id()) for _ in range(30)]
    services, statements = processes[0], []
    sqlalchemy.event.listen(services.db.engine, "commit", statements.append)
    for _ in range(3):
        for one in keys:
            assert refuse(services, one, tenant_id=tenant)
    assert len(statements) == 20, "others wait for each commit"
    for another in (other, None):
        assert refuse(services, replace(ADMIN, key_id=new_id()), tenant_id=another)
    assert len(statements) == 22
    services.refusals.flush()
    found = [event for one in keys for event in events(services, one)]
    assert sum(event.details.get("count", 1) for event in found) == 90
    stopped_clock.move(2)
    assert refuse(services, keys[1], 2, tenant_id=tenant)
    assert events(services, keys[1])[-1].action == "tenant.refused"


def test_only_what_is_over_is_stored_while_the_process_goes_on(processes, key):
    refusals = processes[0].refusals
    for second in (0, 1):
        for _ in range(11):
            refuse(processes[0], key, second)
    refusals.flush(before=int(NOON.timestamp()) + 1)
    assert [event.at for event in events(processes[0], key, "request.refused")] == [NOON]
    refusals.flush(before=int(NOON.timestamp()) + 2)
    assert len(events(processes[0], key, "request.refused")) == 2


@pytest.fixture
def logged(monkeypatch):
    """The names of the lines that are logged from now on."""
    lines = []

    class Log:
        def warning(self, name, **_):
            lines.append(name)

        exception = warning

    monkeypatch.setattr("app.limits.refusals.logger", Log())
    return lines


def test_a_flood_is_told_once_a_minute(processes, key, logged):
    def flood() -> None:
        for second in range(3):
            for _ in range(210):
                refuse(processes[0], key, second)

    began = time.monotonic()
    flood()
    processes[0].refusals._told.expire(began + 60)
    flood()
    assert logged == ["refusals.flood"]
    processes[0].refusals._told.expire(time.monotonic() + 60)
    flood()
    assert logged == ["refusals.flood"] * 2


def test_what_is_kept_of_many_keys_is_bounded(processes, monkeypatch):
    refusals = processes[0].refusals
    assert refusals._tallies.maxsize == 10_000
    assert refusals._told.maxsize == 10_000


def test_old_counts_of_refusals_do_not_pile_up(processes, key):
    for second in range(0, 10, 3):
        refuse(processes[0], replace(key, key_id=new_id()), second)
    with processes[0].db.read() as db:
        numbers = set(db.scalars(sqlalchemy.select(QuotaUse.number).where(QuotaUse.name == "refusal")))
    assert numbers == {int(NOON.timestamp()) + 9}


def test_a_rest_that_can_not_be_stored_is_logged(processes, key, monkeypatch, logged):
    for _ in range(15):
        refuse(processes[0], key)

    def away(*_):
        raise StoreUnavailableError("away")

    monkeypatch.setattr(processes[0].db, "write", away)
    processes[0].refusals.flush()
    assert logged == ["audit.refusal_not_recorded"]
    assert not processes[0].refusals._rests


def test_the_end_of_the_process_waits_for_what_is_being_stored(processes, key, monkeypatch):
    refusals, storing, go_on = processes[0].refusals, threading.Event(), threading.Event()
    store, at_exit = refusals._store, set()

    def slowly(rests):
        storing.set()
        assert go_on.wait(60)
        store(rests)

    monkeypatch.setattr(refusals, "_store", slowly)
    monkeypatch.setattr("app.limits.refusals.atexit.register", at_exit.add)
    monkeypatch.setattr("app.limits.refusals.atexit.unregister", at_exit.discard)
    for _ in range(12):
        refuse(processes[0], key)
    with ThreadPoolExecutor() as threads:
        in_time = threads.submit(refusals.flush)
        assert storing.wait(60)
        assert at_exit == {refusals.flush}, "the end of the process would not wait"
        at_the_end = threads.submit(refusals.flush)
        with pytest.raises(TimeoutError):
            at_the_end.result(0.3)
        go_on.set()
        at_the_end.result(60)
        assert in_time.done()
    assert at_exit == set()
    [rest] = events(processes[0], key, "request.refused")
    assert rest.details["count"] == 2


def test_the_rest_of_a_flood_is_stored_by_itself_when_the_second_is_over(processes, key, monkeypatch):
    monkeypatch.setattr("app.limits.refusals.spawn", spawn)
    refusals = processes[0].refusals
    for _ in range(40):  # if the second ends meanwhile, more than ten are left all the same
        event = Event(key.actor, "tenant.refused", {"code": "forbidden"}, outcome="refused")
        refusals.record(key.key_id, None, event)
    until(lambda: events(processes[0], key, "request.refused"))


def test_a_request_beyond_is_answered_with_429_and_logged_once(app, world, logged, monkeypatch):
    program = world.key("audit:read")
    requests = Counter()
    monkeypatch.setattr("app.http.problems.Event", partial(Event, at=NOON))
    for _ in range(205):
        response = program.raw("GET", "/v1/tenants")
        requests[response.status_code, response.get_json()["code"]] += 1
    assert requests == {(403, "forbidden"): 200, (429, "rate_limited"): 5}
    assert response.headers["Retry-After"] == "1"
    assert logged == ["refusals.flood"]
    assert program.raw("GET", "/v1/audit-events").status_code == 200, "what is not refused is served all the same"
    app.extensions["deputy"].refusals.flush()
