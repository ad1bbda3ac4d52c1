"""The feed of audit events misses nothing; and how the log is read by time without looking
through it.
"""

import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy
from alembic import command

from app.audit import log as audit
from app.audit.events import Actor, Event, record
from app.audit.log import AuditLog, EventFilter
from app.errors import StoreUnavailableError
from app.ids import first_id_at, new_id, time_of
from app.store import database as store
from app.store.database import (
    CLOCKS_APART,
    LONGEST,
    SYSTEM,
    Database,
    database_now,
    postgresql_limits,
)
from app.store.migrations import alembic_config
from app.store.models import AuditEvent
from tests.support.databases import empty_database, new_database
from tests.support.rows import plan
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

    def move(seconds: float) -> None:
        ahead = timedelta(seconds=seconds, milliseconds=10)
        monkeypatch.setattr(audit, "database_now", lambda db: database_now(db) + ahead)

    return move


on_postgresql = pytest.mark.parametrize("own_database", ["postgresql"], indirect=True)


def say(database: Database, action: str, **more) -> None:
    with database.write(SYSTEM) as db:
        record(db, Event(TESTS, action, **more))


class Consumer:
    """Reads on from the last event that it saw, as docs/api.md shows it."""

    def __init__(self, database: Database) -> None:
        self._log, self._after = AuditLog(database), BEGINNING
        self.seen: list[str] = []

    def poll(self) -> list[str]:
        found = self._log.feed(None, EventFilter(), limit=2, after=self._after).items
        if found:
            self._after = found[-1].id
            self.seen += [event.action for event in found]
        return self.seen


def test_an_event_comes_when_it_has_settled_and_not_before(own_database, monkeypatch):
    say(own_database, "tests.wrote")
    with own_database.read() as db:
        made = time_of(db.scalars(sqlalchemy.select(AuditEvent.id)).one())
    for milliseconds, seen in ((0, []), (1, ["tests.wrote"])):
        at = made + timedelta(seconds=SETTLED, milliseconds=milliseconds)
        monkeypatch.setattr(audit, "database_now", lambda _, at=at: at)
        assert Consumer(own_database).poll() == seen


@on_postgresql
def test_a_transaction_held_open_while_others_commit_is_not_passed_by(own_database, later):
    """It made its event first and commits last, as late as it may."""
    consumer, begun, go_on = Consumer(own_database), threading.Event(), threading.Event()

    def hold() -> None:
        with own_database.write(SYSTEM) as db:
            record(db, Event(TESTS, "tests.held"))
            db.flush()
            begun.set()
            go_on.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert begun.wait(60)
    for number in range(3):
        say(own_database, f"tests.n{number}")
    newest = AuditLog(own_database).events(None, EventFilter(), limit=50, after=None).items
    assert [event.action for event in newest] == ["tests.n2", "tests.n1", "tests.n0"], (
        "others are through"
    )
    later(LONGEST)  # when the database ends it
    assert consumer.poll() == []
    go_on.set()
    holder.join()
    later(SETTLED)
    consumer.poll()
    assert consumer.poll() == ["tests.held", "tests.n0", "tests.n1", "tests.n2"]


@on_postgresql
def test_a_transaction_that_is_held_for_too_long_is_ended_by_the_database(
    own_database, later, monkeypatch
):
    """However long its transaction stays open: the feed must not pass over its event."""
    monkeypatch.setattr(audit, "LONGEST", SHORT)
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
    assert [
        event.action
        for event in AuditLog(own_database).events(None, EventFilter(), limit=9, after=None).items
    ] == ["tests.other"]


def test_a_use_case_that_took_too_long_commits_nothing(own_database, monkeypatch):
    """Also where the database knows no limit for a whole transaction: SQLite, and PostgreSQL
    before 17.
    """
    clock = time.monotonic

    def take_too_long() -> None:
        with own_database.write(SYSTEM) as db:
            record(db, Event(TESTS, "tests.late"))
            monkeypatch.setattr(store.time, "monotonic", lambda: clock() + LONGEST + 1)

    with pytest.raises(StoreUnavailableError):
        take_too_long()
    monkeypatch.undo()
    assert AuditLog(own_database).events(None, EventFilter(), limit=9, after=None).items == []


def test_an_event_that_waited_too_long_is_not_stored(own_database):
    """It would be stored behind the feed's back; and nobody waits for it any longer."""
    log = AuditLog(own_database)
    old = Event(TESTS, "tests.old", {}, at=datetime.now(UTC) - timedelta(seconds=11))
    with pytest.raises(StoreUnavailableError):
        log.append(old)
    log.append(Event(TESTS, "tests.fresh", {}, at=datetime.now(UTC) - timedelta(seconds=5)))
    assert [
        event.action for event in log.events(None, EventFilter(), limit=9, after=None).items
    ] == ["tests.fresh"]


def test_the_log_is_read_as_what_takes_long(own_database):
    """On SQLite such a look has a thread of its own (tests/store/test_sqlite_reads.py)."""
    long: list[bool] = []
    sqlalchemy.event.listen(
        own_database.engine,
        "begin",
        lambda begun: long.append(begun.get_execution_options()["deputy_takes_long"]),
    )
    log = AuditLog(own_database)
    log.events(None, EventFilter(), limit=1, after=None)
    log.feed(None, EventFilter(), limit=1, after=BEGINNING)
    assert long == [True, True]


# --- the limits of PostgreSQL ---


def shown(database: Database, name: str) -> str:
    with database.read() as db:
        return db.scalar(sqlalchemy.text(f"SHOW {name}"))


@pytest.fixture
def postgresql(tmp_path):
    with empty_database("postgresql", tmp_path) as url:
        database = Database(url)
        yield database
        database.engine.dispose()


def test_every_connection_of_the_service_has_the_two_timeouts(postgresql):
    assert shown(postgresql, "statement_timeout") == "10s"
    assert shown(postgresql, "transaction_timeout") == "15s"
    dedicated = postgresql.dedicated()
    assert dedicated.execute("SHOW transaction_timeout").fetchone() == ("15s",)
    dedicated.close()


def test_older_servers_have_their_own():
    assert postgresql_limits(170000) == {"statement_timeout": 10, "transaction_timeout": 15}
    assert postgresql_limits(160004) == {
        "statement_timeout": 10,
        "idle_in_transaction_session_timeout": 15,
    }


def test_a_statement_that_takes_too_long_is_a_503_and_not_a_hang(postgresql, monkeypatch):
    monkeypatch.setattr(store, "_STATEMENT_SECONDS", 0.2)
    with pytest.raises(StoreUnavailableError), postgresql.read() as db:
        db.execute(sqlalchemy.text("SELECT pg_sleep(60)"))


def test_migrations_take_as_long_as_they_take(postgresql, monkeypatch):
    monkeypatch.setattr(store, "LONGEST", 0.3)
    with pytest.raises(StoreUnavailableError), postgresql.read() as db:
        db.execute(sqlalchemy.text("SELECT pg_sleep(60)"))
    command.upgrade(alembic_config(postgresql), "head")
    with pytest.raises(StoreUnavailableError), postgresql.read() as db:
        db.execute(sqlalchemy.text("SELECT pg_sleep(60)"))


# --- by time ---


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def long_log(request):
    """A log of some days: an event every half minute, of two tenants, mostly issuances."""
    tenants = (new_id(), new_id())
    with new_database(request.param) as url:
        database = Database(url)
        begin = datetime(2030, 1, 1, tzinfo=UTC)
        rows = [
            {
                "id": UUID(int=first_id_at(at := begin + STEP * number).int | (7 << 76) | number),
                "at": at,
                "action": "tests.rare" if number % 1000 == 0 else audit.ISSUED,
                "outcome": "ok",
                "actor_kind": "operator",
                "actor_name": "tests",
                "tenant_id": tenants[number % 2],
                "details": {},
            }
            for number in range(7_000)
        ]
        with database.write(SYSTEM) as db:
            db.execute(sqlalchemy.insert(AuditEvent), rows)
        with database.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
        yield database, begin, tenants
        database.engine.dispose()


def test_since_and_until_are_half_open_to_the_microsecond(long_log):
    database, begin, _ = long_log
    log = AuditLog(database)
    tick = timedelta(microseconds=1)
    for since, until_, numbers in (
        (begin + STEP, begin + 4 * STEP, (3, 2, 1)),
        (begin + STEP + tick, begin + 3 * STEP + tick, (3, 2)),
    ):
        wanted = EventFilter(since=since, until=until_)
        events = log.events(None, wanted, limit=50, after=None).items
        assert [event.at for event in events] == [begin + STEP * number for number in numbers]
    ancient = EventFilter(
        since=datetime(1970, 1, 1, tzinfo=UTC), until=datetime(1970, 1, 2, tzinfo=UTC)
    )
    assert log.events(None, ancient, limit=50, after=None).items == []
    far = EventFilter(since=datetime(9998, 12, 31, tzinfo=UTC))
    assert log.events(None, far, limit=50, after=None).items == []


@pytest.mark.parametrize("who", ["all", "tenant", "action"])
def test_a_time_is_looked_up_and_not_looked_for(long_log, who):
    """An hour in the middle: both of its ends are bounds of the index that serves the rest of
    the question.
    """
    database, begin, tenants = long_log
    log, hour = AuditLog(database), begin + timedelta(hours=24)
    more = {"all": {}, "tenant": {"tenant_id": tenants[0]}, "action": {"actions": ("tests.rare",)}}[
        who
    ]
    wanted = EventFilter(since=hour, until=hour + timedelta(hours=1), **more)
    how = plan(database, lambda: log.events(None, wanted, limit=50, after=None), of="audit_events")
    if database.engine.dialect.name == "sqlite":
        assert "SEARCH audit_events USING INDEX" in how, how
        assert "id>? AND id<?" in how, how
        assert "SCAN" not in how, how
    else:
        [bounds] = [line for line in how.splitlines() if "Index Cond" in line]
        assert "id > " in bounds, how
        assert "id < " in bounds, how
        assert "Seq Scan" not in how, how
