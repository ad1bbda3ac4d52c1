"""Refusals on record: a process records ten of a key in a second singly, and the rest in one
event.
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
import sqlalchemy

from app.audit import Event
from app.audit.log import AuditLog
from app.clock import now
from app.errors import RateLimitedError, StoreUnavailableError
from app.ids import new_id
from app.limits import limits
from app.limits.refusal_events import Refusals
from app.store.database import Database
from app.store.models import AuditEvent
from tests.support.databases import new_database
from tests.support.rows import ADMIN
from tests.support.waiting import until

flush_in_time = Refusals._flush_in_time


@dataclass(frozen=True)
class Process:
    db: Database
    audit: AuditLog
    refusals: Refusals


@pytest.fixture(scope="module")
def databases(request):
    with new_database() as url:
        both = [Database(url) for _ in range(2)]
        yield both
        for database in both:
            database.engine.dispose()


@pytest.fixture
def processes(databases):
    """Two of them, as two gunicorn workers, which have refused nothing yet."""
    logs = [AuditLog(database) for database in databases]
    both = [
        Process(database, log, Refusals(log)) for database, log in zip(databases, logs, strict=True)
    ]
    yield both
    for process in both:
        process.refusals.flush()


@pytest.fixture
def key():
    return replace(ADMIN, key_id=new_id())


@pytest.fixture
def began():
    """The second in which all refusals of a test are."""
    return now().replace(microsecond=500_000)


@pytest.fixture(autouse=True)
def stands_still(monkeypatch):
    """Nothing is stored by itself: the second lasts until a test says otherwise. And the bounds
    are those of life.
    """
    for name, amount in {"REFUSALS": 200, "REFUSALS_OF_KEY": 10, "REFUSALS_OF_TENANT": 20}.items():
        assert getattr(limits, name).amount == amount
        monkeypatch.setattr(f"app.limits.refusal_events.{name}", getattr(limits, name))
    monkeypatch.setattr(Refusals, "_flush_in_time", lambda _: None)


def refuse(services, key, at, *, code="forbidden", tenant_id=None):
    """One refusal; whether the answer stands."""
    event = Event(key.actor, "tenant.refused", {"code": code}, outcome="refused", at=at)
    try:
        services.refusals.record(tenant_id, event)
    except RateLimitedError as error:
        return error.retry_after != 1
    return True


def events(services, *keys, action=None):
    query = (
        sqlalchemy.select(AuditEvent)
        .where(AuditEvent.actor_id.in_([str(key.key_id) for key in keys]))
        .order_by(AuditEvent.id)
    )
    with services.db.read() as db:
        found = list(db.scalars(query))
    return [event for event in found if action in {None, event.action}]


def test_a_process_records_ten_of_a_second_singly_and_the_rest_as_one_event(processes, key, began):
    for turn in range(60):
        assert refuse(
            processes[turn % 2], key, began, code="not_found" if turn % 6 < 2 else "forbidden"
        )
    for services in processes:
        services.refusals.flush()
    found = events(processes[0], key)
    assert Counter(event.action for event in found) == {"tenant.refused": 20, "request.refused": 2}
    codes = Counter(event.details["code"] for event in found[:20])
    for event in found[20:]:
        codes += Counter(event.details["codes"])
        assert (event.outcome, event.actor_kind, event.request_id) == ("refused", "api_key", None)
        assert event.details["count"] == 20
    assert codes == {"forbidden": 40, "not_found": 20}


def test_many_threads_at_once_record_no_more_than_ten(processes, key, began):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: refuse(processes[0], key, began), range(300)))
    processes[0].refusals.flush()
    assert Counter(answers) == {True: 200, False: 100}
    assert len(events(processes[0], key, action="tenant.refused")) == 10
    [rest] = events(processes[0], key, action="request.refused")
    assert rest.details["count"] == 190


def test_each_second_and_each_key_has_refusals_of_its_own(processes, key, began):
    for _ in range(200):
        assert refuse(processes[0], key, began)
    assert not refuse(processes[0], key, began)
    assert refuse(processes[0], replace(ADMIN, key_id=new_id()), began)
    assert refuse(processes[0], key, began + timedelta(seconds=1))
    assert len(events(processes[0], key, action="tenant.refused")) == 11


def test_events_of_refusals_share_a_commit(processes, key, began, monkeypatch):
    """Each commit is an fsync, for which issuances wait."""
    keys, batches = [replace(ADMIN, key_id=new_id()) for _ in range(20)], []
    for one in keys:
        for _ in range(11):
            refuse(processes[0], one, began)
    group = processes[0].audit._group
    commit = group._commit

    def commit_slowly(items):
        batches.append(len(items))
        time.sleep(0.2)  # so that all others join meanwhile
        return commit(items)

    monkeypatch.setattr(group, "_commit", commit_slowly)
    processes[0].refusals.flush()
    assert sum(batches) == 20
    assert len(batches) < 10


def test_the_keys_of_a_tenant_are_told_singly_twenty_times_in_a_second_together(
    processes, began, stopped_clock
):
    tenant, other, keys = new_id(), new_id(), [replace(ADMIN, key_id=new_id()) for _ in range(30)]
    services = processes[0]
    for _ in range(3):
        for one in keys:
            assert refuse(services, one, began, tenant_id=tenant)
    assert len(events(services, *keys)) == 20
    for another in (other, None):
        stranger = replace(ADMIN, key_id=new_id())
        assert refuse(services, stranger, began, tenant_id=another)
        assert len(events(services, stranger)) == 1
    services.refusals.flush()
    stored = events(services, *keys)
    assert sum(event.details.get("count", 1) for event in stored) == 90
    whose = {(event.action, event.tenant_id) for event in stored}
    assert whose == {("tenant.refused", None), ("request.refused", tenant)}, "it sees its flood"
    stopped_clock.move(2)
    assert refuse(services, keys[1], began + timedelta(seconds=2), tenant_id=tenant)
    assert events(services, keys[1])[-1].action == "tenant.refused"


def test_only_what_is_over_is_stored_while_the_process_goes_on(processes, key, began):
    refusals, second = processes[0].refusals, int(began.timestamp())
    for number in (0, 1):
        for _ in range(11 + number):
            refuse(processes[0], key, began + timedelta(seconds=number))
    refusals.flush(before=second + 1)
    assert [
        event.details["count"] for event in events(processes[0], key, action="request.refused")
    ] == [1]
    refusals.flush(before=second + 2)
    assert [
        event.details["count"] for event in events(processes[0], key, action="request.refused")
    ] == [1, 2]


@pytest.fixture
def logged(monkeypatch):
    """The names of the lines that are logged from now on."""
    lines = []

    class Log:
        def warning(self, name, **_):
            lines.append(name)

        exception = warning

    monkeypatch.setattr("app.limits.refusal_events.logger", Log())
    return lines


def test_a_flood_is_told_once_a_minute(processes, key, began, logged, stopped_clock):
    def flood():
        for second in range(3):
            for _ in range(210):
                refuse(processes[0], key, began + timedelta(seconds=second))

    flood()
    stopped_clock.move(59)
    flood()
    assert logged == ["refusals.flood"]
    stopped_clock.move(1)
    flood()
    assert logged == ["refusals.flood"] * 2


def test_a_rest_that_can_not_be_stored_is_logged(processes, key, began, monkeypatch, logged):
    for _ in range(15):
        refuse(processes[0], key, began)

    def away(*_):
        raise StoreUnavailableError("away")

    monkeypatch.setattr(processes[0].audit, "append", away)
    processes[0].refusals.flush()
    assert logged == ["audit.refusal_not_recorded"]
    assert not processes[0].refusals._rests


def test_the_end_of_the_process_waits_for_what_is_being_stored(processes, key, began, monkeypatch):
    refusals, storing, go_on = processes[0].refusals, threading.Event(), threading.Event()
    store, at_exit = refusals._store, set()

    def slowly(rests):
        storing.set()
        assert go_on.wait(60)
        store(rests)

    monkeypatch.setattr(refusals, "_store", slowly)
    monkeypatch.setattr("app.limits.refusal_events.atexit.register", at_exit.add)
    monkeypatch.setattr("app.limits.refusal_events.atexit.unregister", at_exit.discard)
    for _ in range(12):
        refuse(processes[0], key, began)
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
    [rest] = events(processes[0], key, action="request.refused")
    assert rest.details["count"] == 2


def test_the_rest_of_a_flood_is_stored_by_itself_when_the_second_is_over(
    processes, key, monkeypatch
):
    monkeypatch.setattr(Refusals, "_flush_in_time", flush_in_time)
    refusals = processes[0].refusals
    for _ in range(40):  # if the second ends meanwhile, more than ten are left all the same
        event = Event(key.actor, "tenant.refused", {"code": "forbidden"}, outcome="refused")
        refusals.record(None, event)
    until(lambda: events(processes[0], key, action="request.refused"))
