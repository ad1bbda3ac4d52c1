"""AUDIT_RETENTION_DAYS: what is older leaves the log, nothing younger can, and others write
meanwhile. tests/audit/test_months.py has what happens month by month.
"""

from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy

from app.audit import Actor
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


def write(database, *ages):
    """Events of these ages, in months that were made in time."""
    rows = []
    for number, age in enumerate(ages, 1):
        time = now() - age
        make_month(database, time)
        row = {"id": UUID(int=first_id_at(time).int | number), "at": time}
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


def test_many_background_workers_at_once_do_not_fail(own_database):
    kept = write(own_database, *[500 * DAY - timedelta(seconds=n) for n in range(50)], DAY)[50:]
    assert at_once([lambda: tidy(own_database, 400)] * 6) == [None] * 6
    tidy(own_database, 400)
    assert left(own_database) == {*kept}
