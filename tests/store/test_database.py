"""The database as the services use it: times, transactions, pages, and what happens when it is
away.
"""

import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime, timedelta, timezone
from unittest.mock import Mock

import pytest
import sqlalchemy
from sqlalchemy import Column, DateTime, MetaData, Table, insert, select, text, update
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.errors import ConflictError, StoreUnavailableError
from app.ids import new_id
from app.limits.limits import VENDOR_REQUESTS
from app.store.database import SYSTEM, Database, Lock, until_committed
from app.store.keyset import page
from app.store.models import Tenant
from dev.ports import free_port
from tests.support.databases import empty_database, postgresql
from tests.support.rows import ByHand, statements
from tests.support.waiting import until, waiting_for_locks


@pytest.fixture
def row_id(database):
    tenant = Tenant(id=new_id(), name=uuid.uuid4().hex)
    with database.write(SYSTEM) as db:
        db.add(tenant)
    return tenant.id


def name_of(database, row_id):
    with database.read() as db:
        return db.scalar(select(Tenant.name).where(Tenant.id == row_id))


def rename(db, row_id):
    db.execute(update(Tenant).where(Tenant.id == row_id).values(name="another"))


def test_a_stop_finds_a_connection_beside_the_requests_that_work(database):
    """Those of unbound keys, each of which has a connection."""
    with ExitStack() as others:
        for _ in range(VENDOR_REQUESTS.amount):
            others.enter_context(database.read()).connection()
        with database.read() as db:
            assert db.scalar(select(1)) == 1


# --- times ---


def test_a_time_comes_back_as_the_same_moment_in_utc(database, row_id):
    query = select(Tenant).where(Tenant.id == row_id)
    for value in (
        datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime(2030, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ):
        with database.write(SYSTEM) as db:
            db.scalars(query).one().created_at = value
        with database.read() as db:  # compared in SQL, it is the same moment too
            back = db.scalars(query.where(Tenant.created_at == value)).one().created_at
        assert (back, back.utcoffset()) == (value, timedelta(0))


DEFAULTS = {
    "timezone": "Asia/Kolkata",
    "datestyle": "German",
    "default_transaction_isolation": "repeatable read",
}


def test_the_servers_defaults_change_neither_times_nor_isolation(tmp_path):
    """The server, the role or the database may set them."""
    with empty_database() as url:
        name = sqlalchemy.make_url(url).database
        ByHand(url)(*[f"ALTER DATABASE {name} SET {key} TO '{DEFAULTS[key]}'" for key in DEFAULTS])
        table = Table("times", MetaData(), Column("at", DateTime(timezone=True)))
        database = Database(url)
        with database.write(SYSTEM) as db:
            table.create(db.connection())
            db.execute(insert(table).values(at=datetime(2030, 1, 2, 3, tzinfo=UTC)))
        with database.read() as db:
            assert db.scalar(select(table.c.at)).isoformat() == "2030-01-02T03:00:00+00:00"
            assert db.scalar(text("SHOW transaction_isolation")) == "read committed"
        database.engine.dispose()


# --- transactions ---


def test_a_write_is_stored_at_its_end_and_not_before(database):
    tenant = Tenant(id=new_id(), name="written")
    with database.write(SYSTEM) as db:
        db.add(tenant)
        db.flush()
        assert name_of(database, tenant.id) is None
    assert name_of(database, tenant.id) == "written"
    assert tenant.name == "written", "it stays readable after the transaction"


def test_a_read_and_a_write_that_raises_store_nothing(database, row_id):
    before = name_of(database, row_id)
    # the transaction is what raises
    with pytest.raises(LookupError), database.write(SYSTEM) as db:  # noqa: PT012
        rename(db, row_id)
        raise LookupError
    with database.read() as db:
        rename(db, row_id)
    assert name_of(database, row_id) == before


def test_a_violated_constraint_passes_as_it_is(database, row_id):
    with pytest.raises(IntegrityError), database.write(SYSTEM) as db:
        db.execute(insert(Tenant).values(id=row_id, name="again"))
    with pytest.raises(IntegrityError), database.write(SYSTEM) as db:
        db.add(Tenant(id=row_id, name="again"))  # at the flush of the commit itself


def test_a_bug_in_a_statement_is_not_called_unavailable():
    """A 503 would be tried again and again; a bug is a 500 with a full log."""
    database = Database(postgresql())
    with pytest.raises(ProgrammingError), database.read() as db:
        db.execute(text("SELECT no_such_column FROM pg_database"))
    database.engine.dispose()


def test_locks_are_taken_in_the_order_of_their_numbers(own_database):
    """In another order two revocations could end in a deadlock."""
    low, high = uuid.UUID(int=2), uuid.UUID(int=9)

    def hold_both():
        with own_database.write(SYSTEM) as db:
            Lock.PRINCIPAL.hold(db, high, low)
        return True

    with ThreadPoolExecutor(1) as pool:
        with own_database.write(SYSTEM) as db:
            Lock.PRINCIPAL.hold(db, low)
            other = pool.submit(hold_both)
            until(lambda: waiting_for_locks(own_database))
            Lock.PRINCIPAL.hold(db, high)
        assert other.result(timeout=30), "neither was cancelled"


def test_a_stop_that_is_refused_is_not_tried_again():
    stop = Mock(side_effect=ConflictError("This is suspended already."))
    with pytest.raises(ConflictError):
        until_committed(stop)()
    stop.assert_called_once()


# --- away ---


@pytest.mark.parametrize("way", [Database.read, lambda database: database.write(SYSTEM)])
def test_a_database_that_does_not_listen_is_unavailable(way):
    secret = "nonexistent"
    listening = f"postgresql+psycopg://u:{secret}@127.0.0.1:{free_port()}/d"
    with pytest.raises(StoreUnavailableError) as caught, way(Database(listening)) as db:
        db.execute(text("SELECT 1"))
    assert caught.value.code == "unavailable"
    assert not [part for part in (secret, "127.0.0.1") if part in caught.value.detail]


def test_a_lost_connection_is_unavailable_in_the_middle_and_not_even_noticed_while_idle(tmp_path):
    with empty_database() as url:
        database, server, pid = Database(url), ByHand(url), "SELECT pg_backend_pid()"
        with pytest.raises(StoreUnavailableError), database.write(SYSTEM) as db:  # noqa: PT012
            server(f"SELECT pg_terminate_backend({db.scalar(text(pid))})")
            db.execute(text("SELECT 1"))
        with database.read() as db:
            idle = db.scalar(text(pid))
        server(f"SELECT pg_terminate_backend({idle})")
        with database.read() as db:
            assert db.scalar(text(pid)) != idle
        database.engine.dispose()


# --- pages ---


def test_a_page_is_one_statement_without_count_or_offset(database, row_id):
    """Both cost more the deeper the page."""
    with statements(database) as executed, database.read() as db:
        page(db, select(Tenant), Tenant.id, limit=2, after=row_id)
    [(statement, parameters)] = executed
    assert "count(" not in statement.lower()
    assert "id <" in statement
    assert "ORDER BY tenants.id DESC" in statement
    values = parameters.values() if isinstance(parameters, dict) else parameters
    numbers = [value for value in values if isinstance(value, int)]
    assert numbers in ([3], [3, 0]), "one more than asked tells of a next page"


def test_a_connection_to_a_standby_is_not_kept(own_database):
    """After a failover it goes on answering, and refuses what writes."""
    with own_database.engine.connect() as connection:
        connection.execute(text("SET default_transaction_read_only = on"))
        connection.commit()
    for expected in (pytest.raises(StoreUnavailableError), nullcontext()):
        with expected, own_database.write(SYSTEM) as db:
            db.add(Tenant(id=new_id(), name="Acme"))


def test_a_server_that_vanishes_while_a_statement_runs_is_noticed(own_database):
    """Its kernel has acknowledged the statement, so only keepalives ask whether it is there."""
    options = socket.SO_KEEPALIVE, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL
    levels = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_TCP
    with (
        own_database.engine.connect() as connection,
        socket.fromfd(connection.connection.fileno(), socket.AF_INET, 0) as used,
    ):
        assert [*map(used.getsockopt, levels, options)] == [1, 5, 2]


def test_a_missing_right_is_for_the_operator(own_database):
    with own_database.write(SYSTEM) as db:
        db.execute(text("CREATE ROLE nobody_yet_known"))
    try:
        with pytest.raises(StoreUnavailableError), own_database.write(SYSTEM) as db:
            db.execute(text("SET LOCAL ROLE nobody_yet_known; TABLE tenants"))
    finally:
        with own_database.write(SYSTEM) as db:
            db.execute(text("DROP ROLE nobody_yet_known"))
