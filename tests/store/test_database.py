"""The database as the services use it: times, transactions, pages, and what happens when it is
away.
"""

import os
import threading
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy
from sqlalchemy import Column, MetaData, String, Table, event, insert, select, text, update
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.errors import StoreUnavailableError
from app.ids import new_id
from app.limits.table import VENDOR_REQUESTS
from app.store.database import SYSTEM, Database, UtcDateTime
from app.store.models import Tenant
from app.store.pages import page
from dev.stack import free_port
from tests.support.databases import empty_database, postgresql


def tenants(name: str, count: int) -> list[Tenant]:
    return [Tenant(id=new_id(), name=name) for _ in range(count)]


@pytest.fixture
def named(database):
    """`named(count)`: a name of one's own, and so many tenants that have it, oldest first."""

    def make(count: int):
        name = uuid.uuid4().hex
        made = tenants(name, count)
        with database.write(SYSTEM) as db:
            db.add_all(made)
        return select(Tenant).where(Tenant.name == name), [tenant.id for tenant in made]

    return make


def test_a_stop_finds_a_connection_beside_the_requests_that_work(database):
    """Those of unbound keys: on SQLite each waits for the write lock with a connection."""
    with ExitStack() as others:
        for _ in range(VENDOR_REQUESTS.amount):
            others.enter_context(database.read()).connection()
        with database.read() as db:
            assert db.scalar(select(1)) == 1


# --- SQLite's files ---


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.usefixtures("umask")
def test_the_files_of_sqlite_are_their_owners_alone(tmp_path):
    suffixes = ("", "-shm", "-wal", ".lock", ".turnstile")
    for mask in (0o022, 0o000):
        folder = tmp_path / f"{mask:o}"
        folder.mkdir()
        os.umask(mask)
        database = Database(f"sqlite:///{folder}/deputy.sqlite3")
        with database.write(SYSTEM) as db:
            db.execute(text("CREATE TABLE things (name TEXT)"))
        assert modes(folder) == dict.fromkeys(
            [f"deputy.sqlite3{suffix}" for suffix in suffixes], 0o600
        )
        database.engine.dispose()


@pytest.mark.usefixtures("umask")
def test_a_file_of_sqlite_that_is_there_keeps_its_mode_and_its_rows(tmp_path):
    path = tmp_path / "deputy.sqlite3"
    path.touch(mode=0o640)
    for attempt in (1, 2):
        database = Database(f"sqlite:///{path}")
        with database.write(SYSTEM) as db:
            db.execute(text("CREATE TABLE IF NOT EXISTS things (attempt INTEGER)"))
            db.execute(text("INSERT INTO things VALUES (:attempt)"), {"attempt": attempt})
            assert db.scalars(text("SELECT count(*) FROM things")).one() == attempt
        assert modes(tmp_path)["deputy.sqlite3"] == 0o640
        database.engine.dispose()


# --- times ---


def test_a_time_comes_back_as_the_same_moment_in_utc(database, named):
    query, _ = named(1)
    for value in (
        datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime(2030, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(2029, 12, 31, 20, tzinfo=timezone(timedelta(hours=-11))),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ):
        with database.write(SYSTEM) as db:
            db.scalars(query).one().created_at = value
        with database.read() as db:
            back = db.scalars(query).one().created_at
            equal = db.scalars(query.where(Tenant.created_at == value)).one_or_none()
        assert (back, back.utcoffset()) == (value, timedelta(0))
        assert equal is not None, "compared in SQL, it is the same moment too"


def test_times_are_utc_in_any_time_zone_of_the_server(tmp_path):
    """PostgreSQL answers in the session's zone, which the server, the role or the database may
    set.
    """
    with empty_database("postgresql", tmp_path) as url:
        name = sqlalchemy.make_url(url).database
        _execute(url, f"ALTER DATABASE {name} SET timezone TO 'Asia/Kolkata'")
        table = Table("times", MetaData(), Column("at", UtcDateTime))
        database = Database(url)
        with database.write(SYSTEM) as db:
            table.create(db.connection())
            db.execute(insert(table).values(at=datetime(2030, 1, 2, 3, tzinfo=UTC)))
        with database.read() as db:
            back = db.scalars(select(table.c.at)).one()
        database.engine.dispose()
    assert back == datetime(2030, 1, 2, 3, tzinfo=UTC)
    assert back.isoformat() == "2030-01-02T03:00:00+00:00"


def _execute(url: str, statement: str) -> None:
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


# --- transactions ---


def test_a_write_is_stored_at_its_end_and_not_before(database, named):
    query, _ = named(0)
    made = Tenant(name=query.compile().params["name_1"])
    with database.write(SYSTEM) as db:
        db.add(made)
        db.flush()
        if database.engine.dialect.name == "postgresql":
            with database.read() as other:
                assert other.scalars(query).all() == []
    with database.read() as db:
        assert [tenant.id for tenant in db.scalars(query)] == [made.id]
    assert made.name, "what was read stays readable after the transaction"


class OwnError(Exception):
    pass


def test_a_write_that_raises_stores_nothing(database, named):
    query, [only] = named(1)
    # the transaction is what raises
    with pytest.raises(OwnError), database.write(SYSTEM) as db:  # noqa: PT012
        db.execute(update(Tenant).where(Tenant.id == only).values(name="lost"))
        raise OwnError
    with database.read() as db:
        assert [tenant.id for tenant in db.scalars(query)] == [only]


def test_a_read_stores_nothing(database, named):
    query, [only] = named(1)
    with database.read() as db:
        db.execute(update(Tenant).where(Tenant.id == only).values(name="lost"))
    with database.read() as db:
        assert [tenant.id for tenant in db.scalars(query)] == [only]


def test_a_violated_constraint_passes_as_it_is(database, named):
    _, [only] = named(1)
    with pytest.raises(IntegrityError), database.write(SYSTEM) as db:
        db.execute(insert(Tenant).values(id=only, name="again"))
    with pytest.raises(IntegrityError), database.write(SYSTEM) as db:
        db.add(Tenant(id=only, name="again"))  # at the flush of the commit itself


def test_a_bug_in_a_statement_is_not_called_unavailable():
    """A 503 would be tried again and again; a bug is a 500 with a full log. SQLite's driver
    doesn't tell them apart.
    """
    database = Database(postgresql())
    with pytest.raises(ProgrammingError), database.read() as db:
        db.execute(text("SELECT no_such_column FROM pg_database"))
    database.engine.dispose()


def sqlite(tmp_path) -> tuple[Database, Database]:
    """Two engines on one file, as two processes have them."""
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    return Database(url), Database(url)


COUNTER = Table("counter", MetaData(), Column("name", String), Column("value", sqlalchemy.Integer))


def test_two_writers_on_sqlite_wait_for_each_other(tmp_path):
    """Both read first and write later. Without BEGIN IMMEDIATE one fails at once, with any
    timeout.
    """
    first, second = sqlite(tmp_path)
    with first.write(SYSTEM) as db:
        COUNTER.create(db.connection())
        db.execute(insert(COUNTER).values(name="c", value=0))
    has_read, done = threading.Event(), []

    def add(database: Database, while_open) -> None:
        with database.write(SYSTEM) as db:
            value = db.scalars(select(COUNTER.c.value)).one()
            while_open()
            db.execute(update(COUNTER).values(value=value + 1))
        done.append(value)

    def second_writer() -> None:
        has_read.wait()
        add(second, lambda: None)

    thread = threading.Thread(target=second_writer)
    thread.start()
    add(first, lambda: (has_read.set(), thread.join(0.2)))
    thread.join()
    assert done == [0, 1]
    with first.read() as db:
        assert db.scalars(select(COUNTER.c.value)).one() == 2
    first.engine.dispose()
    second.engine.dispose()


def test_readers_on_sqlite_do_not_wait_for_a_writer(tmp_path):
    first, second = sqlite(tmp_path)
    with first.write(SYSTEM) as db:
        COUNTER.create(db.connection())
        db.execute(insert(COUNTER).values(name="c", value=1))
    with first.write(SYSTEM) as db:
        db.execute(update(COUNTER).values(value=2))
        with second.read() as reader:
            assert reader.scalars(select(COUNTER.c.value)).one() == 1
    first.engine.dispose()
    second.engine.dispose()


def test_sqlite_keeps_what_it_promises(tmp_path):
    """An audit row survives a power cut before credentials leave, and foreign keys hold."""
    database, _ = sqlite(tmp_path)
    with database.read() as db:
        found = {
            name: db.scalars(text(f"PRAGMA {name}")).one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.engine.dispose()
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }


# --- away ---


WAYS = [Database.read, lambda database: database.write(SYSTEM)]


@pytest.mark.parametrize("way", WAYS)
def test_a_database_that_can_not_be_opened_or_does_not_listen_is_unavailable(way):
    secret = "nonexistent"
    listening = f"postgresql+psycopg://u:{secret}@127.0.0.1:{free_port()}/d"
    for url in (f"sqlite:////{secret}/deputy.sqlite3", listening):
        with pytest.raises(StoreUnavailableError) as caught, way(Database(url)) as db:
            db.execute(text("SELECT 1"))
        assert caught.value.code == "unavailable"
        assert not [part for part in (secret, "127.0.0.1") if part in caught.value.detail], url


def test_a_connection_lost_in_the_middle_is_unavailable_and_the_next_one_works(tmp_path):
    with empty_database("postgresql", tmp_path) as url:
        database = Database(url)
        with pytest.raises(StoreUnavailableError), database.write(SYSTEM) as db:  # noqa: PT012
            _execute(
                url,
                f"SELECT pg_terminate_backend({db.scalars(text('SELECT pg_backend_pid()')).one()})",
            )
            db.execute(text("SELECT 1"))
        with database.read() as db:
            assert db.scalars(text("SELECT 1")).one() == 1
        database.engine.dispose()


def test_a_pooled_connection_lost_while_idle_is_not_even_noticed(tmp_path):
    with empty_database("postgresql", tmp_path) as url:
        database = Database(url)
        with database.read() as db:
            pid = db.scalars(text("SELECT pg_backend_pid()")).one()
        _execute(url, f"SELECT pg_terminate_backend({pid})")
        with database.read() as db:
            assert db.scalars(text("SELECT pg_backend_pid()")).one() != pid
        database.engine.dispose()


def test_making_a_database_connects_to_nothing():
    Database(f"postgresql+psycopg://u@127.0.0.1:{free_port()}/d")


# --- pages ---


def test_a_page_is_one_statement_without_count_or_offset(database, named):
    """Both cost more the deeper the page."""
    query, _ = named(5)
    seen = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: seen.append(args[2:4]))
    with database.read() as db:
        page(db, query, Tenant.id, limit=2, after=new_id())
    [(statement, parameters)] = [found for found in seen if "SELECT" in found[0]]
    assert "count(" not in statement.lower()
    assert "id <" in statement
    assert "ORDER BY tenants.id DESC" in statement
    limits = parameters.values() if isinstance(parameters, dict) else parameters
    assert [v for v in limits if isinstance(v, int)] in ([3], [3, 0]), (
        "one more than asked tells of a next page"
    )
