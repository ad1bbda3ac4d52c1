"""The audit log: stored with its change or not at all, by many at once, and read only by the
keys that it concerns.
"""

import re
import uuid
from datetime import timedelta
from functools import partial
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, insert, text

from app.audit import log as audit
from app.audit.events import Actor, Event, record
from app.audit.log import AuditLog, EventFilter
from app.clock import now
from app.ids import new_id
from app.store.database import SYSTEM
from app.store.models import ISSUED, AuditEvent, Tenant
from tests.support.rows import connection_row, tenant_row

OPERATOR = Actor("operator", None, "the tests")
KEY = Actor("api_key", "01890a5d-ac96-774b-bcce-b302099a8057", "a program", "r-123")


@pytest.fixture
def log(database):
    return AuditLog(database)


def write(database, action="tests.wrote", *, actor=OPERATOR, **fields) -> None:
    with database.write(SYSTEM) as db:
        record(db, Event(actor, action, **fields))


def found(log, confined_to=None, action=None, **wanted) -> list[AuditEvent]:
    wanted |= {} if action is None else {"actions": (action,)}
    return log.events(confined_to, EventFilter(**wanted), limit=200, after=None).items


def details(events) -> list[object]:
    return [event.details.get("n") for event in events]


# --- writing ---


class OwnError(Exception):
    pass


def test_an_event_is_rolled_back_with_its_transaction(database, log):
    tenant = Tenant(id=new_id(), name="never was")
    # the transaction is what raises
    with pytest.raises(OwnError), database.write(SYSTEM) as db:  # noqa: PT012
        db.add(tenant)
        record(db, Event(OPERATOR, "tenant.created", tenant_id=tenant.id))
        db.flush()
        raise OwnError
    assert found(log, tenant_id=tenant.id) == []
    with database.read() as db:
        assert db.get(Tenant, tenant.id) is None


def test_a_change_is_rolled_back_when_its_event_cannot_be_stored(database):
    tenant = Tenant(id=new_id(), name="never was")
    with pytest.raises(Exception, match="outcome"), database.write(SYSTEM) as db:  # noqa: PT012
        db.add(tenant)
        record(db, Event(OPERATOR, "tenant.created", outcome=None, tenant_id=tenant.id))
    with database.read() as db:
        assert db.get(Tenant, tenant.id) is None


# --- reading ---


@pytest.fixture
def mixed_events(database):
    """Two tenants' events and one of nobody's, told apart by their numbers."""
    acme, globex, connection = new_id(), new_id(), new_id()
    action = f"tests.{uuid.uuid4().hex[:20]}"
    write(database, action, tenant_id=acme, details={"n": 1})
    write(database, action, tenant_id=acme, connection_id=connection, details={"n": 2})
    write(database, "tests.other", tenant_id=acme, connection_id=connection, details={"n": 3})
    write(database, action, tenant_id=globex, details={"n": 4})
    write(database, action, tenant_id=None, details={"n": 5})
    return acme, globex, connection, action


def test_filters_narrow_and_go_together_newest_first(log, mixed_events):
    acme, globex, connection, action = mixed_events
    assert details(found(log, action=action)) == [5, 4, 2, 1]
    assert details(found(log, tenant_id=acme)) == [3, 2, 1]
    assert details(found(log, tenant_id=globex)) == [4]
    assert details(found(log, connection_id=connection)) == [3, 2]
    assert details(found(log, connection_id=connection, action=action)) == [2]
    assert details(found(log, tenant_id=globex, connection_id=connection)) == []
    assert details(found(log, action="tests.nothing")) == []
    assert details(found(log, tenant_id=acme, action="tests%")) == []


# --- by which index ---

RARE = "tests.rare"
SESSION = "ASIAEXAMPLEEXAMPLE00"
INDEXES = {
    index.name: [column.name for column in index.columns] for index in AuditEvent.__table__.indexes
}
INDEXES["pk_audit_events"] = ["id"]


@pytest.fixture(scope="module")
def event_of_busy_log(database) -> AuditEvent:
    """An event of a connection, in a log of many connections of several tenants, with mostly
    issuances.
    """
    tenants, connections = [new_id() for _ in range(8)], [new_id() for _ in range(40)]
    common = {"outcome": "ok", "actor_kind": "api_key", "actor_name": "a program", "details": {}}
    rows = [
        common
        | {
            "action": f"tests.{number % 7}" if number % 20 == 0 else ISSUED,
            "connection_id": connections[number % 40],
            "tenant_id": tenants[number % 8],
            "access_key_id": f"ASIA{number:016}" if number % 10 == 1 else None,
        }
        for number in range(4_000)
    ]
    with database.write(SYSTEM) as db:
        db.execute(insert(AuditEvent), rows)
        last = AuditEvent(
            action=RARE,
            connection_id=connections[0],
            tenant_id=tenants[0],
            access_key_id=SESSION,
            **common,
        )
        db.add(last)
    # Which does so by itself; nothing makes SQLite do it
    if database.engine.dialect.name == "postgresql":
        with database.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE audit_events")
            connection.commit()
    return last


# Who is named, whether a connection is, and an action or a session; each second one with bounds in
# time.
COMBINATIONS = list(
    product(["anybody's", "a tenant's", "its own"], [False, True], [None, ISSUED, RARE, SESSION])
)


def test_each_combination_of_filters_is_one_range_of_an_index(database, log, event_of_busy_log):
    """With an equal value for each column of the index but the id, by which the range is in
    order.
    """
    for number, (whose, of_connection, what) in enumerate(COMBINATIONS):
        of_session, bounded = what == SESSION, (number + number // 4) % 2 == 0
        action = None if of_session else what
        wanted = EventFilter(
            tenant_id=event_of_busy_log.tenant_id if whose == "a tenant's" else None,
            connection_id=event_of_busy_log.connection_id if of_connection else None,
            actions=() if action is None else (action,),
            access_key_id=SESSION if of_session else None,
            since=event_of_busy_log.at - timedelta(days=1) if bounded else None,
            until=event_of_busy_log.at + timedelta(days=1) if bounded else None,
        )
        bound_to = event_of_busy_log.tenant_id if whose == "its own" else None
        owner = "connection_id" if of_connection else None if whose == "anybody's" else "tenant_id"
        columns = [
            column for column in (owner, "action" if action == RARE else None, "id") if column
        ]
        if of_session:
            columns = ["access_key_id", "id"]
        for read in (partial(log.events, after=None), partial(log.feed, after=UUID(int=0))):
            index, how = plan(
                database, *statement_of(database, partial(read, bound_to, wanted, limit=50))
            )
            assert (INDEXES[index], "TEMP B-TREE" in how) == (columns, False), (
                f"{whose} {wanted} {how}"
            )


def test_the_events_of_a_key_or_an_address_are_found_whole_though_pages_are_short(
    database, log, monkeypatch
):
    monkeypatch.setattr(audit, "_WINDOW", 2)
    tenant, mine = new_id(), new_id()
    actors = [
        KEY,
        KEY._replace(id=str(mine), client_address="203.0.113.9"),
        KEY._replace(client_address="203.0.113.8"),
    ]
    for number in range(12):
        write(
            database,
            f"tests.n{number % 4}",
            actor=actors[number % 3],
            tenant_id=tenant,
            details={"n": number},
        )
    write(database, "tests.n1", actor=actors[1], tenant_id=new_id())

    def whole(**wanted) -> list[object]:
        events, after = [], None
        while True:
            page = log.events(None, EventFilter(tenant_id=tenant, **wanted), limit=3, after=after)
            events, after = [*events, *page.items], page.after
            if after is None:
                return details(events)

    assert whole(api_key_id=mine) == [10, 7, 4, 1]
    assert whole(client_address="203.0.113.8") == [11, 8, 5, 2]
    assert whole(api_key_id=mine, actions=("tests.n1", "tests.n2")) == [10, 1]
    assert whole(api_key_id=mine, actions=("tests.n0",)) == [4]
    assert whole(api_key_id=new_id()) == []
    assert whole(actions=("tests.n1", "tests.n2")) == [10, 9, 6, 5, 2, 1]


def test_a_search_without_an_index_reads_a_bounded_part_of_the_log_for_a_page(
    database, event_of_busy_log, log, monkeypatch
):
    """Or a key that never acted would cost one way through all events of its tenant, and time
    out.
    """
    monkeypatch.setattr(audit, "_WINDOW", 100)
    nobody = EventFilter(tenant_id=event_of_busy_log.tenant_id, api_key_id=new_id())
    pages, statements = [], []
    read = partial(log.events, None, nobody, limit=50)
    statements.append(statement_of(database, lambda: pages.append(read(after=None))))
    statements.append(statement_of(database, lambda: pages.append(read(after=pages[0].after))))
    ids = [event.id for event in found(log, tenant_id=event_of_busy_log.tenant_id)]
    assert [(page.items, page.after) for page in pages] == [([], ids[99]), ([], ids[199])]
    for (statement, parameters), last in zip(statements, (ids[99], ids[199]), strict=True):
        index, _ = plan(database, statement, parameters)
        assert INDEXES[index] == ["tenant_id", "id"]
        assert statement.count("audit_events.id >") == 1, "SQLite would choose one of two bounds"
        below = UUID(int=last.int - 1)
        assert below in given(parameters) or below.hex in given(parameters)


@pytest.mark.parametrize("bound", [False, True])
def test_another_tenants_connection_is_not_searched_for_ones_own_events(database, log, bound):
    of_one, tenant = connection_row(database, tenant_row(database)), tenant_row(database)
    write(database, connection_id=of_one)
    wanted = EventFilter(tenant_id=None if bound else tenant, connection_id=of_one)
    for read in (partial(log.events, after=None), partial(log.feed, after=UUID(int=0))):
        statement, _ = statement_of(
            database, lambda read=read: empty(read(tenant if bound else None, wanted, limit=9))
        )
        assert "FROM audit_events" not in statement


def empty(found) -> None:
    assert found == ([], None)


def given(parameters: Any) -> list[Any]:
    return [*(parameters.values() if isinstance(parameters, dict) else parameters)]


def statement_of(database, read) -> tuple[str, Any]:
    """The last statement that reads events, or else the last one."""
    asked = []

    def note(_connection, _cursor, statement, parameters, *_) -> None:
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        read()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return next((one for one in reversed(asked) if "FROM audit_events" in one[0]), asked[-1])


def plan(database, statement: str, parameters: Any) -> tuple[str, str]:
    """The index by which the database looks for these events, and how it says so."""
    with database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            how = str(
                connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            )
            used = re.search(r"USING (?:COVERING )?INDEX (\w+)", how)[1]
            return ("pk_audit_events" if used.startswith("sqlite_autoindex") else used), how
        # A log of so few events would be read and sorted as a whole.
        connection.exec_driver_sql(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
        )
        connection.exec_driver_sql("SET LOCAL enable_sort = off")
        how = str(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all())
        # Of the partition with the events, as PostgreSQL may do anything with an empty one.
        used = re.search(rf"using (\w+) on audit_events_{now():%Y_%m}\b", how)[1]
        whole = text(
            "SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = CAST(:used AS"
            " regclass)"
        )
        return connection.scalars(whole, {"used": used}).one(), how
