"""The feed of audit events misses nothing."""

import threading
import time
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy
from alembic import command

from app.audit import Actor, Event, log as audit
from app.audit.log import AuditLog, EventFilter
from app.clock import CLOCKS_APART, now
from app.errors import StoreUnavailableError
from app.ids import time_of
from app.store import database as store
from app.store.database import LONGEST, SYSTEM, database_now, postgresql_limits
from app.store.migrations import alembic_config
from app.store.models import AuditEvent
from tests.support.waiting import until

BEGINNING = UUID(int=0)
TESTS = Actor("operator", None, "tests")
SETTLED = 15 + 5  # seconds: LONGEST and CLOCKS_APART
SHORT = 1  # in the place of LONGEST
STEP = timedelta(seconds=30)  # between two events of a long log


@pytest.fixture
def later(monkeypatch):
    """`later(seconds)`: the feed finds the database's clock so far ahead.

    And ten milliseconds more, as what was recorded in this very millisecond has not settled.
    """

    def move(seconds):
        ahead = timedelta(seconds=seconds, milliseconds=10)
        monkeypatch.setattr(audit, "database_now", lambda db: database_now(db) + ahead)

    return move


def say(database, action):
    with database.write(SYSTEM) as db:
        Event(TESTS, action).record(db)


def stored(database):
    page = AuditLog(database).events(None, EventFilter(), limit=50, after=None)
    return [event.action for event in page.items]


def feed(log, after):
    return log.events(None, EventFilter(), limit=2, after=after, oldest_first=True)


class Consumer:
    """Reads on from the last event that it saw, as docs/api.md shows it."""

    def __init__(self, database):
        self._log, self._after = AuditLog(database), BEGINNING
        self.seen = []

    def poll(self):
        for event in feed(self._log, self._after).items:
            self._after = event.id
            self.seen.append(event.action)
        return self.seen


def test_an_event_comes_when_it_has_settled_and_not_before(own_database, monkeypatch):
    say(own_database, "tests.wrote")
    with own_database.read() as db:
        settled = time_of(db.scalar(sqlalchemy.select(AuditEvent.id))) + timedelta(seconds=SETTLED)
    for milliseconds, actions in ((0, []), (1, ["tests.wrote"])):
        at = settled + timedelta(milliseconds=milliseconds)
        monkeypatch.setattr(audit, "database_now", lambda _, at=at: at)
        assert Consumer(own_database).poll() == actions


def test_a_transaction_held_open_while_others_commit_is_not_passed_by(own_database, later):
    """It made its event first and commits last, as late as it may."""
    consumer, begun, go_on = Consumer(own_database), threading.Event(), threading.Event()

    def hold():
        with own_database.write(SYSTEM) as db:
            Event(TESTS, "tests.held").record(db)
            db.flush()
            begun.set()
            go_on.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert begun.wait(60)
    for number in range(3):
        say(own_database, f"tests.n{number}")
    assert stored(own_database) == ["tests.n2", "tests.n1", "tests.n0"], "others are through"
    later(LONGEST)  # when the database ends it
    assert consumer.poll() == []
    go_on.set()
    holder.join()
    later(SETTLED)
    consumer.poll()
    assert consumer.poll() == ["tests.held", "tests.n0", "tests.n1", "tests.n2"]


def test_a_transaction_that_is_held_for_too_long_is_ended_by_the_database(
    own_database, later, monkeypatch
):
    """However long its transaction stays open: the feed must not pass over its event."""
    monkeypatch.setattr(audit, "FEED_SECONDS", SHORT + CLOCKS_APART)
    later(CLOCKS_APART - 1)
    consumer = Consumer(own_database)
    with monkeypatch.context() as patch:
        patch.setattr(store, "LONGEST", SHORT)
        connection = own_database.engine.connect()
    connection.execute(
        sqlalchemy.insert(AuditEvent).values(
            action="tests.held", outcome="ok", actor_kind="operator", actor_name="x", details={}
        )
    )
    say(own_database, "tests.other")
    until(lambda: consumer.poll() == ["tests.other"])
    with pytest.raises(sqlalchemy.exc.DBAPIError):
        connection.commit()
    connection.close()
    assert stored(own_database) == ["tests.other"]


def test_a_use_case_that_took_too_long_commits_nothing(own_database, monkeypatch):
    """Also where the database knows no limit for a whole transaction: PostgreSQL before 17."""
    clock = time.monotonic

    def take_too_long():
        with own_database.write(SYSTEM) as db:
            Event(TESTS, "tests.late").record(db)
            monkeypatch.setattr(store.time, "monotonic", lambda: clock() + LONGEST + 1)

    with pytest.raises(StoreUnavailableError):
        take_too_long()
    monkeypatch.undo()
    assert stored(own_database) == []


def test_an_event_that_waited_too_long_is_not_stored(own_database):
    """It would be stored behind the feed's back; and nobody waits for it any longer."""
    log = AuditLog(own_database)
    with pytest.raises(StoreUnavailableError):
        log.append(Event(TESTS, "tests.old", at=now() - timedelta(seconds=11)))
    log.append(Event(TESTS, "tests.fresh", at=now() - timedelta(seconds=5)))
    assert stored(own_database) == ["tests.fresh"]


# --- the database's limits ---


def test_every_connection_of_the_service_has_the_two_timeouts(own_database):
    timeouts = {"statement_timeout": "10s", "transaction_timeout": "15s"}
    dedicated = own_database.dedicated()
    with own_database.read() as db:
        for name, value in timeouts.items():
            assert db.scalar(sqlalchemy.text(f"SHOW {name}")) == value
            assert dedicated.execute(f"SHOW {name}").fetchone() == (value,)
    dedicated.close()
    # Older servers have no limit for a whole transaction
    assert postgresql_limits(170000) == {"statement_timeout": 10, "transaction_timeout": 15}
    older = {"statement_timeout": 10, "idle_in_transaction_session_timeout": 15}
    assert postgresql_limits(160004) == older


def test_what_takes_too_long_is_a_503_and_not_a_hang_except_for_migrations(
    own_database, monkeypatch
):
    monkeypatch.setattr(store, "LONGEST", 0.2)
    with pytest.raises(StoreUnavailableError), own_database.read() as db:
        db.execute(sqlalchemy.text("SELECT pg_sleep(60)"))
    command.upgrade(alembic_config(own_database), "head")
    with pytest.raises(StoreUnavailableError), own_database.read() as db:
        db.execute(sqlalchemy.text("SELECT pg_sleep(60)"))
