"""Audit events stored in batches: as the ORM would store them, durably, and only those that
still hold.
"""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import pytest
import sqlalchemy
import time_machine

from app.audit.events import Actor, Event, record
from app.audit.insert import AuditBatch
from app.audit.log import AuditLog
from app.errors import StoreUnavailableError
from app.ids import new_id
from app.store.database import SYSTEM, Database
from app.store.models import AuditEvent
from tests.support.databases import new_database
from tests.support.rows import ByHand, at_once

OPERATOR = Actor("operator", None, "the tests")
KEY = Actor("api_key", "01890a5d-ac96-774b-bcce-b302099a8057", "a program", "r-123")
COLUMNS = [column.name for column in AuditEvent.__table__.columns]


@pytest.fixture
def batch(database):
    """Its connection is closed with the engine's."""
    yield AuditBatch(database)
    database.engine.dispose()


@pytest.fixture
def tenant_id():
    """Whose events a test finds again."""
    return new_id()


def event(tenant, counter=None, **changes) -> Event:
    return Event(
        **({"actor": KEY, "action": "tests.wrote", "details": {}, "tenant_id": tenant} | changes),
        valid_at_counter=counter,
    )


def stored(by_hand, tenant, what="count(*)"):
    # ours
    return by_hand.rows(f"SELECT {what} FROM audit_events WHERE tenant_id = '{tenant.hex}'")  # noqa: S608


def raw(by_hand, event_id) -> list[tuple[str, str]]:
    """Type and value of each column, as they lie in the database."""
    value = (
        "CAST({0} AS text)"
        if by_hand.engine.dialect.name == "postgresql"
        else "typeof({0}) || quote({0})"
    )
    columns = ", ".join(value.format(column) for column in COLUMNS)
    # ours
    [row] = by_hand.rows(f"SELECT {columns} FROM audit_events WHERE id = '{event_id.hex}'")  # noqa: S608
    return list(zip(COLUMNS, row, strict=True))


# --- what is stored ---

WHOLE_SECOND, MOMENT = datetime(2030, 1, 2, tzinfo=UTC), datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
TRICKY = 'it\'s "quoted", 100 %s {} \\ :a ?1 ✓ 🦊 \t end'


@pytest.mark.parametrize(
    ("moment", "fields"),
    [
        (WHOLE_SECOND, {}),
        (
            MOMENT,
            {
                "outcome": "refused",
                "connection_id": new_id(),
                "details": {"code": "x", "fields": []},
            },
        ),
        (MOMENT, {"actor": OPERATOR, "tenant_id": None, "outcome": "failed"}),
        (
            MOMENT,
            {
                "actor": Actor("api_key", None, TRICKY),
                "details": {TRICKY: [TRICKY, None, True, 1.5, 2**53, {}]},
            },
        ),
        (MOMENT, {"details": {"z": 1, "a": {"b": [[], {}]}, "nul": "\0", "e": 1e300, "-": -0.0}}),
    ],
    ids=["least", "refused", "operator", "tricky", "json"],
)
def test_a_row_is_bit_for_bit_what_the_orm_writes(database, by_hand, batch, moment, fields):
    action = f"tests.{new_id().hex}"
    fields = {"actor": KEY, "details": {}, "tenant_id": new_id()} | fields
    with time_machine.travel(moment, tick=False):
        made = Event(action=action, **fields)
        with database.write(SYSTEM) as db:
            record(db, Event(fields.pop("actor"), action, **fields))
    with database.read() as db:
        (orm_id,) = db.scalars(sqlalchemy.select(AuditEvent.id).where(AuditEvent.action == action))
    batch.commit([made])
    ours, orm = raw(by_hand, made.id), raw(by_hand, orm_id)
    assert ours[1:] == orm[1:]
    assert ours[0] == (
        "id",
        orm[0][1].replace(orm_id.hex, made.id.hex).replace(str(orm_id), str(made.id)),
    )
    with database.read() as db:
        assert db.get(AuditEvent, made.id).details == fields["details"]


def test_an_empty_batch_learns_the_revocation_counter(batch, by_hand):
    assert batch.commit([]) == frozenset()
    assert batch.history.counter == by_hand.counter


# --- counts ---


def test_of_a_mixed_batch_those_are_stored_that_hold(batch, by_hand, tenant_id):
    counter = by_hand.counter
    counters = [counter, None, counter - 1, counter, counter + 1, None, 0]
    events = [event(tenant_id, valid_at) for valid_at in counters]
    assert batch.commit(events) == {
        made.id for made in events if made.valid_at_counter not in {None, counter}
    }
    wanted = {made.id.hex for made in events if made.valid_at_counter in {None, counter}}
    assert {str(found).replace("-", "") for (found,) in stored(by_hand, tenant_id, "id")} == wanted
    assert len(wanted) == 4


def test_a_move_of_the_revocation_counter_counts_for_the_very_next_batch(batch, by_hand, tenant_id):
    counter = by_hand.counter
    assert batch.commit([event(tenant_id, counter)]) == frozenset()
    by_hand("UPDATE configuration SET revocation_counter = revocation_counter + 1")
    late = [event(tenant_id, counter), event(tenant_id, counter)]
    assert batch.commit(late) == {made.id for made in late}
    assert stored(by_hand, tenant_id) == [(1,)]


def test_what_is_taken_away_from_a_row_stops_the_events_that_rely_on_it_and_no_others(
    batch, by_hand, tenant_id
):
    batch.commit([])
    counter, rows = by_hand.counter, [new_id() for _ in range(3)]
    events = [event(tenant_id, counter, row_ids=(None, row)) for row in rows] + [event(tenant_id)]
    by_hand("UPDATE configuration SET revocation_counter = revocation_counter + 1")
    by_hand(
        f"INSERT INTO revoked_rows (revocation_counter, row_id) VALUES ({counter + 1},"  # noqa: S608
        f" '{rows[1].hex}')"
    )
    assert batch.commit(events) == {events[1].id}
    assert stored(by_hand, tenant_id) == [(3,)]


# --- one statement, one transaction ---


def test_a_batch_is_one_statement_of_one_transaction(batch, by_hand, tenant_id):
    batch.commit([])
    seen: list[str] = []
    connection = batch._store.connection
    if isinstance(connection, sqlite3.Connection):
        connection.set_trace_callback(seen.append)
    for n in range(2):
        batch.commit([event(tenant_id, details={"n": n}) for _ in range(50)])
    if seen:
        assert [s.split()[0] for s in seen if "INSERT" not in s] == [
            "BEGIN",
            "SELECT",
            "COMMIT",
        ] * 2
    else:
        rows = stored(
            by_hand, tenant_id, "DISTINCT CAST(xmin AS text), CAST(cmin AS text), details ->> 'n'"
        )
        assert sorted(n for _, _, n in rows) == ["0", "1"], (
            "each batch: one transaction, and one command of it"
        )
        assert len({transaction for transaction, _, _ in rows}) == 2
    assert stored(by_hand, tenant_id) == [(100,)]
    assert batch._store.connection is connection


def test_a_batch_with_bad_data_stores_nothing_and_the_next_one_works(
    batch, by_hand, database, tenant_id
):
    made = event(tenant_id)
    with pytest.raises(database.engine.dialect.loaded_dbapi.IntegrityError):
        batch.commit([event(tenant_id), made, made])
    assert stored(by_hand, tenant_id) == [(0,)]
    batch.commit([event(tenant_id)])
    assert stored(by_hand, tenant_id) == [(1,)]


def test_a_value_that_is_no_json_is_its_senders_trouble_alone(database, by_hand, tenant_id):
    log = AuditLog(database)
    odd = event(tenant_id, details={"object": object()})
    jobs = [lambda n=n: log.append(odd if n == 3 else event(tenant_id)) for n in range(8)]
    outcomes = at_once(jobs)
    assert isinstance(outcomes.pop(3), TypeError)
    assert outcomes == [True] * 7
    assert stored(by_hand, tenant_id) == [(7,)]
    database.engine.dispose()


def test_many_append_at_once_and_each_is_stored_before_it_is_told(database, by_hand, tenant_id):
    log, counter = AuditLog(database), by_hand.counter

    def work(worker: int) -> None:
        for _ in range(10):
            made = event(tenant_id, counter)
            assert log.append(made)
            assert raw(by_hand, made.id)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert stored(by_hand, tenant_id) == [(60,)]
    database.engine.dispose()


# --- durable ---


def test_a_commit_is_durable(batch, tenant_id):
    batch.commit([event(tenant_id)])
    connection = batch._store.connection
    if isinstance(connection, sqlite3.Connection):
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    else:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert connection.autocommit


def test_a_commit_is_durable_where_the_database_says_that_it_need_not_be():
    with new_database("postgresql") as url:
        by_hand = ByHand(url)
        by_hand(f"ALTER DATABASE {sqlalchemy.make_url(url).database} SET synchronous_commit = off")
        assert by_hand.one("SHOW synchronous_commit") == "off"
        database = Database(url)
        batch = AuditBatch(database)
        batch.commit([event(new_id())])
        assert batch._store.connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        with database.write(SYSTEM) as db:
            assert db.scalar(sqlalchemy.text("SHOW synchronous_commit")) == "on"
        database.engine.dispose()


# --- away, and back ---


def lose(batch, by_hand) -> None:
    """The server's end of the connection is gone when this returns; the file's, where there is
    no server.
    """
    connection = batch._store.connection
    if isinstance(connection, sqlite3.Connection):
        connection.close()
    else:
        by_hand(f"SELECT pg_terminate_backend({connection.info.backend_pid}, 60000)")


def test_a_lost_connection_is_unavailable_once(batch, by_hand, tenant_id):
    batch.commit([event(tenant_id)])
    lose(batch, by_hand)
    with pytest.raises(StoreUnavailableError) as caught:
        batch.commit([event(tenant_id)])
    assert "terminat" not in caught.value.detail
    batch.commit([event(tenant_id)])
    assert stored(by_hand, tenant_id) == [(2,)]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_batch_does_not_notice_that_its_idle_connection_was_lost(
    batch, by_hand, tenant_id, monkeypatch
):
    """Asked first whether it is still there, it says no before anything was sent: another one
    will do.
    """
    monkeypatch.setattr("app.audit.insert._IDLE_SECONDS", -1.0)
    batch.commit([event(tenant_id)])
    lose(batch, by_hand)
    batch.commit([event(tenant_id)])
    assert stored(by_hand, tenant_id) == [(2,)]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_that_outlived_an_idle_second_is_used_again(batch, tenant_id, monkeypatch):
    batch.commit([event(tenant_id)])
    connection = batch._store.connection
    monkeypatch.setattr("app.audit.insert._IDLE_SECONDS", -1.0)
    batch.commit([event(tenant_id)])
    assert batch._store.connection is connection


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_that_hangs_is_unavailable_before_the_callers_give_up(batch, by_hand, tenant_id):
    batch.commit([])
    batch._store.connection.execute("SET statement_timeout = '50ms'")
    with by_hand.engine.begin() as other:
        other.execute(sqlalchemy.text("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(StoreUnavailableError):
            batch.commit([event(tenant_id)])
    batch.commit([event(tenant_id)])
    assert batch._store.connection.execute("SHOW statement_timeout").fetchone() == ("1500ms",)
    assert stored(by_hand, tenant_id) == [(1,)]


def test_a_database_that_is_away_is_unavailable(tmp_path):
    batch = AuditBatch(Database(f"sqlite:///{tmp_path}/no/such/folder/db.sqlite3"))
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            batch.commit([event(new_id())])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_file_that_another_program_holds_is_unavailable_and_the_next_batch_works(
    batch, by_hand, tenant_id
):
    batch.commit([event(tenant_id)])
    batch._store.connection.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(by_hand.engine.url.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError):
            batch.commit([event(tenant_id)])
        other.rollback()
    batch.commit([event(tenant_id)])
    assert stored(by_hand, tenant_id) == [(2,)]


def test_the_batchs_connection_is_closed_with_the_engine_and_opened_again_when_used(
    batch, by_hand, database, tenant_id
):
    batch.commit([event(tenant_id)])
    connection = batch._store.connection
    database.engine.dispose()
    if isinstance(connection, sqlite3.Connection):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    else:
        assert connection.closed
    batch.commit([event(tenant_id)])
    assert stored(by_hand, tenant_id) == [(2,)]
