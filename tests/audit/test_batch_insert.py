"""Audit events stored in batches: as the ORM would store them, durably, and only those that
still hold.
"""

from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
import sqlalchemy
import time_machine

from app.audit import Actor, Event
from app.audit.batch_insert import AuditBatch
from app.errors import StoreUnavailableError
from app.health.checks import Status, _database
from app.ids import new_id
from app.store.database import SYSTEM, Database
from app.store.models import AuditEvent
from tests.support.databases import NOWHERE, new_database
from tests.support.rows import ByHand

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


def event(tenant, counter=None, **changes):
    return Event(KEY, "tests.wrote", tenant_id=tenant, valid_at_counter=counter, **changes)


def stored(by_hand, tenant, what="count(*)"):
    # ours
    return by_hand.rows(f"SELECT {what} FROM audit_events WHERE tenant_id = '{tenant.hex}'")  # noqa: S608


def raw(by_hand, event_id):
    """Type and value of each column, as they lie in the database."""
    columns = ", ".join(f"CAST({column} AS text)" for column in COLUMNS)
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
                "details": {"z": 1, "a": {"b": [[], {}]}, "nul": "\0", "e": 1e300, "-": -0.0},
            },
        ),
        (
            MOMENT,
            {
                "actor": Actor("operator", None, TRICKY),
                "tenant_id": None,
                "details": {TRICKY: [TRICKY, None, True, 1.5, 2**53, {}]},
            },
        ),
    ],
    ids=["least", "json", "tricky"],
)
def test_a_row_is_bit_for_bit_what_the_orm_writes(database, by_hand, batch, moment, fields):
    fields = {"actor": KEY, "action": "tests.wrote", "tenant_id": new_id()} | fields
    with time_machine.travel(moment, tick=False):
        made, recorded = Event(**fields), Event(**fields)
        with database.write(SYSTEM) as db:
            recorded.record(db)
    batch.commit([made])
    ours, orm = raw(by_hand, made.id), raw(by_hand, recorded.id)
    assert ours[1:] == orm[1:]
    for write_id in (str, lambda event_id: event_id.hex):
        orm[0] = ("id", orm[0][1].replace(write_id(recorded.id), write_id(made.id)))
    assert ours[0] == orm[0]
    with database.read() as db:
        assert db.get(AuditEvent, made.id).details == made.details


def test_an_empty_batch_learns_the_revocation_counter(batch, by_hand):
    assert batch.commit([]) == frozenset()
    assert batch.history.counter == by_hand.counter


# --- counts ---

ONE_MORE = "UPDATE configuration SET revocation_counter = revocation_counter + 1"


def test_of_a_mixed_batch_those_are_stored_that_are_valid(batch, by_hand, tenant_id):
    counter = by_hand.counter
    valid = [event(tenant_id, valid_at) for valid_at in (counter, None, counter, None)]
    lost = [event(tenant_id, valid_at) for valid_at in (counter - 1, counter + 1, 0)]
    assert batch.commit([*lost, *valid]) == {each.id for each in lost}
    rows = stored(by_hand, tenant_id, "id")
    assert {UUID(str(row_id)) for (row_id,) in rows} == {each.id for each in valid}


def test_what_is_revoked_stops_the_events_that_rely_on_it_and_no_others(batch, by_hand, tenant_id):
    batch.commit([])
    counter, rows = by_hand.counter, [new_id() for _ in range(3)]
    events = [event(tenant_id, counter, row_ids=(None, row)) for row in rows] + [event(tenant_id)]
    by_hand(ONE_MORE)
    by_hand(f"INSERT INTO revoked_rows VALUES ({counter + 1}, '{rows[1].hex}')")  # noqa: S608
    assert batch.commit(events) == {events[1].id}
    assert stored(by_hand, tenant_id) == [(3,)]


def test_a_row_that_is_revoked_while_the_batch_is_split_is_not_overlooked(
    batch, by_hand, tenant_id, monkeypatch
):
    counter, row, split = by_hand.counter, new_id(), AuditBatch._split

    def revoke(number, row_id):
        by_hand(ONE_MORE, f"INSERT INTO revoked_rows VALUES ({number}, '{row_id.hex}')")  # noqa: S608

    def revoking(*arguments):
        found = split(*arguments)
        monkeypatch.undo()
        revoke(counter + 2, row)
        return found

    batch.commit([])
    revoke(counter + 1, new_id())
    monkeypatch.setattr(AuditBatch, "_split", revoking)
    made = event(tenant_id, counter, row_ids=(row,))
    assert batch.commit([made]) == {made.id}
    assert stored(by_hand, tenant_id) == [(0,)]


# --- one statement, one transaction ---


def test_a_batch_is_one_statement_of_one_transaction(batch, by_hand, tenant_id):
    batch.commit([])
    connection = batch._connection
    for n in range(2):
        batch.commit([event(tenant_id, details={"n": n}) for _ in range(50)])
    command = "DISTINCT details ->> 'n', CAST(xmin AS text), CAST(cmin AS text)"
    (first, one, _), (second, another, _) = sorted(stored(by_hand, tenant_id, command))
    assert (first, second, one == another) == ("0", "1", False)
    assert stored(by_hand, tenant_id) == [(100,)]
    assert batch._connection is connection


def test_a_batch_with_bad_data_stores_nothing_and_the_next_one_works(
    batch, by_hand, database, tenant_id
):
    made = event(tenant_id)
    with pytest.raises(psycopg.IntegrityError):
        batch.commit([event(tenant_id), made, made])
    assert stored(by_hand, tenant_id) == [(0,)]
    batch.commit([event(tenant_id)])
    assert stored(by_hand, tenant_id) == [(1,)]


# --- durable ---


def test_a_commit_is_durable_where_the_database_says_that_it_need_not_be():
    with new_database() as url:
        by_hand = ByHand(url)
        by_hand(f"ALTER DATABASE {sqlalchemy.make_url(url).database} SET synchronous_commit = off")
        assert by_hand.one("SHOW synchronous_commit") == "off"
        database = Database(url)
        batch = AuditBatch(database)
        batch.commit([event(new_id())])
        assert batch._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        with database.write(SYSTEM) as db:
            assert db.scalar(sqlalchemy.text("SHOW synchronous_commit")) == "on"
        database.engine.dispose()


# --- away, and back ---


def lose(batch, by_hand):
    """End the server's end of the connection."""
    by_hand(f"SELECT pg_terminate_backend({batch._connection.info.backend_pid}, 60000)")


def test_a_lost_connection_is_unavailable_once(batch, by_hand, tenant_id):
    batch.commit([event(tenant_id)])
    lose(batch, by_hand)
    with pytest.raises(StoreUnavailableError) as caught:
        batch.commit([event(tenant_id)])
    assert "terminat" not in caught.value.detail
    batch.commit([event(tenant_id)])
    assert stored(by_hand, tenant_id) == [(2,)]


def test_an_idle_connection_is_used_again_and_replaced_if_it_was_lost(
    batch, by_hand, tenant_id, monkeypatch
):
    """Asked first whether it is still there, it says no before anything was sent: another one
    will do.
    """
    monkeypatch.setattr("app.audit.batch_insert._IDLE_SECONDS", -1.0)
    batch.commit([event(tenant_id)])
    connection = batch._connection
    batch.commit([event(tenant_id)])
    assert batch._connection is connection
    lose(batch, by_hand)
    batch.commit([event(tenant_id)])
    assert stored(by_hand, tenant_id) == [(3,)]


def test_a_server_that_hangs_is_unavailable_before_the_callers_give_up(batch, by_hand, tenant_id):
    batch.commit([])
    batch._connection.execute("SET statement_timeout = '50ms'")
    with by_hand.engine.begin() as other:
        other.execute(sqlalchemy.text("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(StoreUnavailableError):
            batch.commit([event(tenant_id)])
    batch.commit([event(tenant_id)])
    assert batch._connection.execute("SHOW statement_timeout").fetchone() == ("1500ms",)
    assert stored(by_hand, tenant_id) == [(1,)]


def test_a_database_that_is_away_is_unavailable():
    batch = AuditBatch(Database(NOWHERE))
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            batch.commit([event(new_id())])


def test_a_database_that_accepts_no_writes_is_unavailable_and_not_ready(own_database):
    """Readiness leaves a standby, in case the database's name leads elsewhere by now."""
    batch, url = AuditBatch(own_database), own_database.engine.url
    by_hand = ByHand(url.render_as_string(hide_password=False))
    batch.commit([event(new_id())])
    setting = f'DATABASE "{url.database}" SET default_transaction_read_only'
    by_hand(f"ALTER {setting} = on")
    own_database.engine.dispose()
    with pytest.raises(StoreUnavailableError):
        batch.commit([event(new_id())])
    assert _database(own_database).seen == "The database answers, but accepts no writes."
    by_hand("SET TRANSACTION READ WRITE", f"ALTER {setting} = off")
    assert _database(own_database).status is Status.OK
    batch.commit([event(new_id())])
    by_hand("ALTER TABLE audit_events RENAME TO others")
    with pytest.raises(StoreUnavailableError):
        batch.commit([event(new_id())])


def test_the_batchs_connection_is_closed_with_the_engine_and_opened_again_when_used(
    batch, by_hand, database, tenant_id
):
    batch.commit([event(tenant_id)])
    connection = batch._connection
    database.engine.dispose()
    assert connection.closed
    batch.commit([event(tenant_id)])
    assert stored(by_hand, tenant_id) == [(2,)]
