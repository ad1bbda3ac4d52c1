"""AUDIT_RETENTION_DAYS: what is older leaves the log, nothing younger can, and others write
meanwhile. tests/audit/test_months.py has what happens on PostgreSQL, month by month.
"""

import threading
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
import sqlalchemy
from sqlalchemy.exc import IntegrityError

from app.audit import Actor, Event
from app.audit.batch_insert import AuditBatch
from app.audit.log import AuditLog, EventFilter
from app.background import housekeeping
from app.clock import now
from app.ids import first_id_at
from app.store.database import SYSTEM
from app.store.models import ISSUED, AuditEvent
from tests.support.housekeeping import tidy
from tests.support.rows import ByHand, at_once

DAY = timedelta(days=1)
MOMENT = timedelta(minutes=1)
TESTS = Actor("operator", None, "tests")
MONTHS = 31 * DAY  # a month is detached as a whole


@pytest.fixture
def by_hand(own_database) -> ByHand:
    return ByHand(own_database.engine.url.render_as_string(hide_password=False))


on_sqlite = pytest.mark.parametrize("own_database", ["sqlite"], indirect=True)


def write(database, *ages, at=None):
    """Events of these ages; `at`: what their rows say instead. On PostgreSQL in months that were
    made in time.
    """
    rows = []
    for number, age in enumerate(ages, 1):
        time = now() - age
        if database.engine.dialect.name == "postgresql":
            make_month(database, time)
        row = {"id": UUID(int=first_id_at(time).int | number), "at": at or time}
        row |= {"action": ISSUED, "outcome": "ok", "actor_kind": "operator", "actor_name": "tests"}
        rows.append(row | {"details": {}})
    with database.write(SYSTEM) as db:
        db.execute(sqlalchemy.insert(AuditEvent), rows)
    return [row["id"] for row in rows]


def make_month(database, time):
    begin = time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    bounds = f"('{first_id_at(begin)}') TO ('{first_id_at((begin + MONTHS).replace(day=1))}')"
    statement = f"CREATE TABLE IF NOT EXISTS audit_events_{time:%Y_%m} PARTITION OF audit_events"
    with database.write(SYSTEM) as db:
        db.execute(sqlalchemy.text(f"{statement} FOR VALUES FROM {bounds}"))


def left(database):
    log = AuditLog(database)
    return {event.id for event in log.events(None, EventFilter(), limit=200, after=None).items}


def test_what_is_older_leaves_the_log_and_what_is_younger_stays(own_database):
    _, *kept = write(
        own_database, 400 * DAY + MONTHS + MOMENT, 400 * DAY - MOMENT, 31 * DAY, 0 * DAY
    )
    for _ in range(2):
        tidy(own_database, 400)
        assert left(own_database) == {*kept}


def test_0_keeps_everything(own_database, by_hand):
    ids = write(own_database, 4000 * DAY, 0 * DAY)
    tidy(own_database, 0)
    assert left(own_database) == {*ids}
    with pytest.raises(sqlalchemy.exc.DBAPIError, match="append-only"):
        by_hand("DELETE FROM audit_events")


def test_the_retention_may_be_lowered_and_raised(own_database):
    ids = write(own_database, 500 * DAY, 200 * DAY, 20 * DAY)
    for days, gone in ((600, 0), (400, 1), (600, 1), (100, 2)):
        tidy(own_database, days)
        assert left(own_database) == {*ids[gone:]}


def test_a_clock_that_is_ahead_ends_nothing(own_database, monkeypatch):
    ids = write(own_database, 300 * DAY, 0 * DAY)
    for name in ("now", "database_now"):
        with monkeypatch.context() as patch:
            patch.setattr(housekeeping, name, lambda *_: now() + 4000 * DAY)
            tidy(own_database, 100_000 if name == "now" else 400)
            tidy(own_database, 400)
    assert left(own_database) == {*ids}


# --- SQLite: rows ---


def test_many_background_workers_at_once_do_not_fail(own_database):
    kept = write(own_database, *[500 * DAY - timedelta(seconds=n) for n in range(50)], DAY)[50:]
    assert at_once([lambda: tidy(own_database, 400)] * 6) == [None] * 6
    tidy(own_database, 400)
    assert left(own_database) == {*kept}


@on_sqlite
def test_sqlite_itself_deletes_no_younger_event(own_database, by_hand):
    """Not by a mistake of ours, and not by hand: by its own clock, and the days that
    housekeeping last told it.
    """
    old, young = write(own_database, 400 * DAY + MOMENT, 400 * DAY - MOMENT)
    by_id = "DELETE FROM audit_events WHERE id = :id"
    for event in (old, young):
        with pytest.raises(IntegrityError, match="append-only"):
            by_hand(by_id, id=event.hex)
    tidy(own_database, 100_000)
    with pytest.raises(IntegrityError, match="append-only"):
        by_hand(by_id, id=old.hex)
    by_hand("UPDATE configuration SET audit_kept_days = 400")
    for statement, values in ((by_id, {"id": young.hex}), ("DELETE FROM audit_events", {})):
        with pytest.raises(IntegrityError, match="append-only"):
            by_hand(statement, **values)
    assert left(own_database) == {old, young}
    by_hand(by_id, id=old.hex)
    for change in ("outcome = 'failed'", "at = '1970-01-01 00:00:00.000000'"):
        with pytest.raises(IntegrityError, match="append-only"):
            by_hand(f"UPDATE audit_events SET {change}")  # noqa: S608
    assert left(own_database) == {young}


@on_sqlite
def test_an_event_is_kept_until_both_its_id_and_its_time_are_old(own_database):
    write(own_database, 500 * DAY)
    kept = write(own_database, 450 * DAY, at=now() - DAY)
    kept += write(own_database, DAY, at=now() - 900 * DAY)
    tidy(own_database, 400)
    assert left(own_database) == {*kept}


@on_sqlite
def test_a_few_rows_at_a_time_and_others_write_in_between(own_database, monkeypatch):
    """Between two transactions it pauses for 19 times as long as the first one took."""
    monkeypatch.setattr(housekeeping, "_TOGETHER", 100)
    write(own_database, *[500 * DAY - timedelta(seconds=number) for number in range(600)])
    pauses, batch = [], AuditBatch(own_database)

    def pause(seconds):
        pauses.append(seconds)
        batch.commit([Event(TESTS, ISSUED, {})])  # the write lock is free

    housekeeping.tidy(own_database, 400, SimpleNamespace(wait=pause))
    assert len(pauses) == 6
    assert min(pauses) > 0
    assert len(left(own_database)) == 6


@on_sqlite
def test_for_15_seconds_at_most_each_time(own_database, monkeypatch):
    class Clock:
        passed, pauses = 0.0, []

        def monotonic(self):
            self.passed += 0.2  # each transaction takes so long
            return self.passed

        def wait(self, seconds):
            self.pauses.append(seconds)
            self.passed += seconds

    monkeypatch.setattr(housekeeping, "_TOGETHER", 2)
    monkeypatch.setattr(housekeeping, "time", clock := Clock())
    *_, youngest = write(
        own_database, *[500 * DAY - timedelta(seconds=number) for number in range(9)]
    )
    housekeeping.tidy(own_database, 400, clock)
    assert left(own_database) == {youngest}, "the oldest go first"
    assert clock.pauses == pytest.approx([3.8, 3.8, 3.8, 2.0]), "the last one only to the end"
    housekeeping.tidy(own_database, 400, clock)
    assert left(own_database) == set()


@on_sqlite
def test_where_nothing_is_old_no_writer_is_waited_for(own_database):
    kept = write(own_database, DAY)
    tidy(own_database, 400)
    begun, done = threading.Event(), threading.Event()

    def hold():
        with own_database.write(SYSTEM):
            begun.set()
            assert done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert begun.wait(60)
    tidy(own_database, 400)
    done.set()
    holder.join()
    assert left(own_database) == {*kept}
