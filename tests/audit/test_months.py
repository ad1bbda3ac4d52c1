"""PostgreSQL's audit log by months: made ahead, detached when old, and nothing in them is ever
changed or deleted.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from structlog.testing import capture_logs

from app.audit import Actor, Event, months
from app.audit.batch_insert import AuditBatch
from app.audit.log import AuditLog, EventFilter
from app.errors import StoreUnavailableError
from app.ids import first_id_at, new_id
from app.store.database import SYSTEM, Database
from app.store.models import ISSUED, AuditEvent
from tests.support.rows import ByHand, at_once, tenant_row
from tests.support.waiting import until, waiting_for_locks

DAY = timedelta(days=1)
TESTS = Actor("operator", None, "tests")


@pytest.fixture
def by_hand(own_database) -> ByHand:
    return ByHand(own_database.engine.url.render_as_string(hide_password=False))


@pytest.fixture
def at(monkeypatch):
    """`at(time)`: housekeeping finds the database's clock there."""
    return lambda time: monkeypatch.setattr(months, "database_now", lambda _: time)


def month(back=0):
    """The beginning of this month, or of one so many months ago."""
    today = datetime.now(UTC)
    years, number = divmod(today.month - 1 - back, 12)
    return datetime(today.year + years, number + 1, 1, tzinfo=UTC)


def name(back=0):
    return f"audit_events_{month(back):%Y_%m}"


def write(database, at):
    """An event of that time; its id, which begins with it."""
    row_id = UUID(int=first_id_at(at).int | (new_id().int & ((1 << 80) - 1)))
    event = Event(TESTS, ISSUED, id=row_id, at=at)
    with database.write(SYSTEM) as db:
        event.record(db)
    return row_id


def places(by_hand):
    """In which table each event of the log is."""
    return dict(by_hand.rows("SELECT id, tableoid::regclass::text FROM audit_events"))


def look(database):
    with database.read() as db:
        return months.partitions(db)


def detached_by(database, limit):
    before = look(database).detached
    months.make_and_detach(database, limit)
    return len(look(database).detached) - len(before)


def old_months(by_hand, *back):
    """As housekeeping made them, when it was time."""
    for number in back:
        values = f"FROM ('{first_id_at(month(number))}') TO ('{first_id_at(month(number - 1))}')"
        by_hand(f"CREATE TABLE {name(number)} PARTITION OF audit_events FOR VALUES {values}")


def listed(database):
    """What the log shows, page by page, newest first."""
    log, found, after = AuditLog(database), [], None
    while True:
        page = log.events(None, EventFilter(), limit=2, after=after)
        found += [event.id for event in page.items]
        if (after := page.after) is None:
            return found


# --- ahead ---


def names(*backs):
    """The partitions of these months, and the default one."""
    return [*(name(back) for back in backs), "audit_events_default"]


def test_months_are_made_three_ahead_as_time_goes_by(own_database, by_hand, at):
    by_hand("CREATE TABLE audit_events_of_mine (id uuid)")
    there = look(own_database)
    assert there == (names(0, -1, -2, -3), [], True)
    assert detached_by(own_database, month()) == 0
    assert look(own_database) == there
    by_hand("SELECT id FROM audit_events_of_mine")  # a name that is not ours
    by_hand(f"ALTER TABLE audit_events DETACH PARTITION {name(-1)}")
    at(month(-1) + DAY)
    assert detached_by(own_database, None) == 0
    there = look(own_database)
    assert there.attached == names(0, -2, -3, -4), "what was detached by hand stays so"
    assert there.detached == [name(-1)]
    at(month(-4) + 14 * DAY)
    assert not look(own_database).next_is_made
    months.make_and_detach(own_database, None)
    assert look(own_database).next_is_made


def test_without_housekeeping_events_are_stored_and_found_all_the_same(own_database, by_hand, at):
    """It was away for half a year. Its first round makes the next months, and leaves the events
    where they are.
    """
    times = [month(-number) + 3 * DAY for number in (0, 3, 4, 6)]
    ids = [write(own_database, time) for time in times]
    default = "audit_events_default"
    assert [*places(by_hand).values()] == [name(), name(-3), default, default]
    at(times[-1])
    months.make_and_detach(own_database, None)
    # And not the sixth, which has events elsewhere
    assert look(own_database).attached == names(0, -1, -2, -3, -7, -8, -9)
    ids += [write(own_database, month(-6) + 20 * DAY), write(own_database, month(-7))]
    assert [places(by_hand)[event] for event in ids[-2:]] == [default, name(-7)]
    assert listed(own_database) == ids[::-1]
    assert detached_by(own_database, None) == 0, "and it does not try what can't be done"


# --- old months ---


def test_a_month_is_detached_when_its_last_event_is_old_enough_and_not_before(
    own_database, by_hand
):
    old_months(by_hand, 3, 2, 1)
    ids = {number: write(own_database, month(number) + DAY) for number in (3, 2, 1, 0)}
    assert detached_by(own_database, month(2) - timedelta(microseconds=1)) == 0
    assert detached_by(own_database, month(2)) == 1
    assert look(own_database).detached == [name(3)]
    assert listed(own_database) == [ids[0], ids[1], ids[2]]
    assert by_hand.rows(f"SELECT id FROM {name(3)}") == [(ids[3],)], "for the operator"  # noqa: S608
    assert detached_by(own_database, month(0)) == 2
    assert listed(own_database) == [ids[0]]
    assert detached_by(own_database, None) == 0
    assert look(own_database).detached == [name(3), name(2), name(1)]


def test_a_detached_month_comes_back_as_monitoring_shows_it(own_database, by_hand):
    old_months(by_hand, 1)
    event = write(own_database, month(1) + DAY)
    months.make_and_detach(own_database, month())
    assert listed(own_database) == []
    shown = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    statement = shown[shown.index("ALTER TABLE audit_events ATTACH PARTITION") :].partition(";")[0]
    of_today = (
        ("2025_09", f"{month(1):%Y_%m}"),
        ("2025-09-01", f"{month(1):%Y-%m-%d}"),
        ("2025-10", f"{month():%Y-%m}"),
    )
    for example, real in of_today:
        assert example in statement
        statement = statement.replace(example, real)
    with by_hand.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert listed(own_database) == [event]
    assert places(by_hand) == {event: name(1)}


def test_events_in_the_default_partition_go_when_the_newest_of_them_is_old(own_database, by_hand):
    old, newest = write(own_database, month(5) + DAY), write(own_database, month(3) + DAY)
    recent = write(own_database, month() + DAY)
    assert detached_by(own_database, month(3) + DAY) == 0
    assert detached_by(own_database, month(3) + 2 * DAY) == 1
    assert listed(own_database) == [recent]
    detached = f"audit_events_default_{month(3) + DAY:%Y_%m_%d}"
    assert by_hand.rows(f"SELECT id FROM {detached} ORDER BY id") == [(old,), (newest,)]  # noqa: S608
    with pytest.raises(DBAPIError, match="append-only"):
        by_hand("TRUNCATE audit_events_default")
    # Events of the same day go again while the first ones wait for the operator, as of a machine
    # whose clock begins at the same moment at each start.
    for again in (1, 2):
        event = write(own_database, month(3) + DAY + timedelta(seconds=again))
        assert places(by_hand) == {recent: name(), event: "audit_events_default"}
        assert detached_by(own_database, month(2)) == 1
    assert look(own_database).detached == [detached, f"{detached}_1", f"{detached}_1_1"]


def test_a_background_worker_leaves_the_months_to_the_one_that_is_at_them(own_database, by_hand):
    old_months(by_hand, 1)
    before = look(own_database)
    with by_hand.engine.begin() as other:
        other.execute(text(months._ALONE))
        assert detached_by(own_database, month()) == 0
        assert look(own_database) == before
    assert detached_by(own_database, month()) == 1


# --- beside issuing ---


def test_a_lock_that_is_not_free_is_given_up_soon_and_issuing_goes_on(own_database, by_hand):
    old_months(by_hand, 1)
    write(own_database, month(1) + DAY)
    rounds, ended = [], []

    def detaching():
        while len(ended) < 3:
            months.make_and_detach(own_database, month())
            rounds.append(True)

    def later():
        try:
            until(lambda: waiting_for_locks(own_database), "make_and_detach waits for its lock")
            return AuditBatch(own_database).commit([Event(TESTS, ISSUED)])
        finally:
            ended.append(True)

    with by_hand.engine.connect() as reader, capture_logs() as lines:
        reader.execute(text("SELECT count(*) FROM audit_events"))  # a dump, for example
        _, *done = at_once([detaching, *[later] * 3])
        assert done == [frozenset()] * 3, "a commit that came later was refused"
        assert look(own_database).detached == []
    assert [line["event"] for line in lines] == ["audit.months_wait"] * len(rounds)
    assert detached_by(own_database, month()) == 1


def test_issuing_does_not_wait_for_the_default_partition(own_database, by_hand):
    """PostgreSQL locks it when a month is made."""
    batch = AuditBatch(own_database)
    batch.commit([])
    with by_hand.engine.begin() as other:
        other.execute(text("LOCK TABLE audit_events_default IN ACCESS EXCLUSIVE MODE"))
        batch.commit([Event(TESTS, ISSUED, {})])
    assert [*places(by_hand).values()] == [name()]


def test_a_database_that_is_away_is_not_taken_for_a_lock():
    with pytest.raises(StoreUnavailableError):
        months.make_and_detach(Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing"), None)


def test_a_prepared_statement_goes_on_while_months_come_and_go(own_database, by_hand, at):
    batch, ids = AuditBatch(own_database), []
    old_months(by_hand, 3, 2, 1)
    for number in range(6):
        event = Event(TESTS, ISSUED)
        batch.commit([event])
        ids.insert(0, event.id)
        at(month(-number) + DAY)
        months.make_and_detach(own_database, month(max(0, 2 - number)))
    assert listed(own_database) == ids
    assert len(look(own_database).detached) == 3


# --- nothing is changed or deleted ---


def test_each_part_of_the_log_has_its_indexes_and_lets_no_event_be_changed_or_deleted(
    own_database, by_hand, at
):
    """The log, and its parts: made by the migration and by housekeeping, the default ones, and one
    that was detached.
    """
    at(month(-1) + DAY)
    write(own_database, month(9))
    assert detached_by(own_database, month(5)) == 1
    [detached] = look(own_database).detached
    tables = ["audit_events", *look(own_database).attached, detached]
    for number in range(5):
        write(own_database, month(-number))
    write(own_database, month(9))
    assert len(tables) == 8
    for table in tables:
        assert by_hand.one(f"SELECT count(*) FROM {table}") > 0, table  # noqa: S608
        for statement in (
            f"DELETE FROM {table}",  # noqa: S608
            f"DELETE FROM ONLY {table}",  # noqa: S608
            f"UPDATE {table} SET outcome = 'failed'",  # noqa: S608
            f"UPDATE {table} SET id = gen_random_uuid()",  # noqa: S608
            f"TRUNCATE {table}",
        ):
            if table == "audit_events" and "ONLY" in statement:
                continue  # it has no rows of its own
            with pytest.raises(DBAPIError, match="append-only"):
                by_hand(statement)
    assert by_hand.one("SELECT count(*) FROM audit_events") == 6
    query = (
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'audit_events'::regclass"
        " AND indisvalid"
    )
    ours = {index for (index,) in by_hand.rows(query)}
    assert ours == {"pk_audit_events", *(index.name for index in AuditEvent.__table__.indexes)}
    for index in ours:
        parts = by_hand.one(
            f"SELECT count(*) FROM pg_inherits WHERE inhparent = '{index}'::regclass"  # noqa: S608
        )
        assert parts == len(look(own_database).attached), index


def test_a_role_that_does_not_own_the_log_writes_it_and_takes_nothing_away(
    own_database, by_hand, at
):
    """What docs/install.md says of two roles: the web processes' needs no more than these
    rights.
    """
    role = f"web_{new_id().hex}"
    by_hand(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
    )
    at(month(-1) + DAY)
    months.make_and_detach(own_database, None)  # a month that was made later, by the owner
    web = Database(own_database.engine.url.set(username=role).render_as_string(hide_password=False))
    try:
        AuditBatch(web).commit([Event(TESTS, ISSUED, {})])
        tenant_row(web)  # and moves on with the rest
        event = write(web, month(-4))
        assert places(by_hand)[event] == name(-4)
        assert len(listed(web)) == 2
        hand = ByHand(web.engine.url.render_as_string(hide_password=False))
        for statement in (
            f"ALTER TABLE audit_events DETACH PARTITION {name()}",
            f"DROP TABLE {name()}",
            "DROP TABLE audit_events",
            f"TRUNCATE {name()}",
            "ALTER TABLE audit_events DISABLE TRIGGER ALL",
            f"ALTER TABLE {name()} DISABLE TRIGGER ALL",
            "DROP TRIGGER audit_events_refuse_update ON audit_events",
        ):
            with pytest.raises(ProgrammingError, match=r"must be owner|permission denied"):
                hand(statement)
        with pytest.raises(DBAPIError, match="append-only"):
            hand("DELETE FROM audit_events")
    finally:
        web.engine.dispose()
        by_hand(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
