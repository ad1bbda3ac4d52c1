"""AUDIT_RETENTION_DAYS: what is older leaves the log, nothing younger can, and others write
meanwhile. tests/audit/test_months.py has what happens on PostgreSQL, month by month.
"""

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
import sqlalchemy
from sqlalchemy.exc import IntegrityError

from app.audit.events import Actor, Event
from app.audit.insert import AuditBatch
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


def write(database, *ages: timedelta, at: datetime | None = None) -> list[UUID]:
    """Events of these ages; `at`: what their rows say instead. On PostgreSQL in months that were
    made in time.
    """
    ids = [UUID(int=first_id_at(now() - age).int | number) for number, age in enumerate(ages, 1)]
    row = {
        "action": ISSUED,
        "outcome": "ok",
        "actor_kind": "operator",
        "actor_name": "tests",
        "details": {},
    }
    if database.engine.dialect.name == "postgresql":
        make_months(database, {(now() - age).strftime("%Y-%m") for age in ages})
    with database.write(SYSTEM) as db:
        rows = [
            row | {"id": made, "at": at or now() - age} for made, age in zip(ids, ages, strict=True)
        ]
        db.execute(sqlalchemy.insert(AuditEvent), rows)
    return ids


def make_months(database, wanted: set[str]) -> None:
    for month in wanted:
        begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        end = (begin + 31 * DAY).replace(day=1)
        statement = (
            f"CREATE TABLE IF NOT EXISTS audit_events_{month.replace('-', '_')} PARTITION OF"
            " audit_events"
        )
        with database.write(SYSTEM) as db:
            bounds = f"FROM ('{first_id_at(begin)}') TO ('{first_id_at(end)}')"
            db.execute(sqlalchemy.text(f"{statement} FOR VALUES {bounds}"))


def left(database) -> set[UUID]:
    log = AuditLog(database)
    return {event.id for event in log.events(None, EventFilter(), limit=200, after=None).items}


def test_what_is_older_leaves_the_log_and_what_is_younger_stays(own_database):
    _, *kept = write(
        own_database, 400 * DAY + MONTHS + MOMENT, 400 * DAY - MOMENT, 31 * DAY, 0 * DAY
    )
    assert tidy(own_database, 400) == 1
    assert left(own_database) == {*kept}
    assert tidy(own_database, 400) == 0
    assert left(own_database) == {*kept}


def test_0_keeps_everything(own_database, by_hand):
    ids = write(own_database, 4000 * DAY, 0 * DAY)
    assert tidy(own_database, 0) == 0
    assert left(own_database) == {*ids}
    with pytest.raises(sqlalchemy.exc.DBAPIError, match="append-only"):
        by_hand("DELETE FROM audit_events")


def test_the_retention_may_be_lowered_and_raised(own_database):
    _, older, *kept = write(own_database, 500 * DAY, 200 * DAY, 20 * DAY)
    assert tidy(own_database, 600) == 0
    assert tidy(own_database, 400) == 1
    assert left(own_database) == {older, *kept}
    assert tidy(own_database, 600) == 0, "what is gone is gone"
    assert tidy(own_database, 100) == 1
    assert left(own_database) == {*kept}


def test_a_clock_that_is_ahead_ends_nothing(own_database, monkeypatch):
    ids = write(own_database, 300 * DAY, 0 * DAY)
    for name in ("now", "database_now"):
        with monkeypatch.context() as patch:
            patch.setattr(housekeeping, name, lambda *_: now() + 4000 * DAY)
            assert tidy(own_database, 100_000 if name == "now" else 400) == 0
            assert tidy(own_database, 400) == 0
    assert left(own_database) == {*ids}


# --- SQLite: rows ---


def test_many_background_workers_at_once_do_not_fail(own_database):
    kept = write(own_database, *[500 * DAY - timedelta(seconds=n) for n in range(50)], DAY)[50:]
    assert {type(found) for found in at_once([lambda: tidy(own_database, 400)] * 6)} == {int}
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
def test_an_event_of_a_late_time_is_kept_though_its_id_is_old(own_database):
    write(own_database, 500 * DAY)
    kept = write(own_database, 450 * DAY, at=now() - DAY)
    assert tidy(own_database, 400) == 1
    assert left(own_database) == {*kept}


@on_sqlite
def test_an_old_event_with_a_young_id_waits_until_its_id_is_old(own_database):
    write(own_database, 500 * DAY)
    kept = write(own_database, 2 * DAY) + write(own_database, DAY, at=now() - 900 * DAY)
    assert tidy(own_database, 400) == 1
    assert left(own_database) == {*kept}


@on_sqlite
def test_a_few_rows_at_a_time_and_others_write_in_between(own_database, monkeypatch):
    """Between two transactions it pauses for 19 times as long as the first one took."""
    monkeypatch.setattr(housekeeping, "_TOGETHER", 100)
    write(own_database, *[500 * DAY - timedelta(seconds=number) for number in range(600)])
    pauses, batch = [], AuditBatch(own_database)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        batch.commit([Event(TESTS, ISSUED, {})])  # the write lock is free

    assert housekeeping.tidy(own_database, 400, SimpleNamespace(wait=pause)) == 600
    assert len(pauses) == 6
    assert min(pauses) > 0
    assert len(left(own_database)) == 6


@on_sqlite
def test_for_15_seconds_at_most_each_time(own_database, monkeypatch):
    class Clock:
        passed, pauses = 0.0, []

        def monotonic(self) -> float:
            self.passed += 0.2  # each transaction takes so long
            return self.passed

        def wait(self, seconds: float) -> None:
            self.pauses.append(seconds)
            self.passed += seconds

    monkeypatch.setattr(housekeeping, "_TOGETHER", 2)
    monkeypatch.setattr(housekeeping, "time", clock := Clock())
    *_, youngest = write(
        own_database, *[500 * DAY - timedelta(seconds=number) for number in range(9)]
    )
    assert housekeeping.tidy(own_database, 400, clock) == 8
    assert left(own_database) == {youngest}, "the oldest go first"
    assert clock.pauses == pytest.approx([3.8, 3.8, 3.8, 2.0]), "the last one only to the end"
    assert housekeeping.tidy(own_database, 400, clock) == 1


@on_sqlite
def test_where_nothing_is_old_no_writer_is_waited_for(own_database):
    kept = write(own_database, DAY)
    tidy(own_database, 400)
    begun, done = threading.Event(), threading.Event()

    def hold() -> None:
        with own_database.write(SYSTEM):
            begun.set()
            assert done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert begun.wait(60)
    assert tidy(own_database, 400) == 0
    done.set()
    holder.join()
    assert left(own_database) == {*kept}
