"""The audit log: stored with its change or not at all, by many at once, and read only by the
keys that it concerns.
"""

import re
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from uuid import UUID

import pytest
from sqlalchemy import insert, text

from app.audit import Actor, Event, log as audit
from app.audit.log import AuditLog, EventFilter
from app.clock import now
from app.ids import first_id_at, new_id
from app.store.database import SYSTEM
from app.store.models import ISSUED, AuditEvent, Tenant
from tests.support.rows import connection_row, statements, tenant_row

OPERATOR = Actor("operator", None, "the tests")
KEY = Actor("api_key", "01890a5d-ac96-774b-bcce-b302099a8057", "a program", "r-123")


@pytest.fixture
def log(database):
    return AuditLog(database)


def write(database, action="tests.wrote", *, actor=OPERATOR, **fields):
    with database.write(SYSTEM) as db:
        Event(actor, action, **fields).record(db)


def numbers(page):
    return [event.details["n"] for event in page.items]


# --- writing ---


def test_a_change_and_its_event_are_stored_together_or_not_at_all(database, log):
    tenant = Tenant(id=new_id(), name="never was")
    # the transaction is what raises
    with pytest.raises(LookupError), database.write(SYSTEM) as db:  # noqa: PT012
        db.add(tenant)
        Event(OPERATOR, "tenant.created", tenant_id=tenant.id).record(db)
        db.flush()
        raise LookupError
    assert log.events(None, EventFilter(tenant.id), limit=9, after=None).items == []
    with database.read() as db:
        assert db.get(Tenant, tenant.id) is None


# --- reading ---


def test_filters_narrow_and_go_together_newest_first(database, log):
    acme, globex, connection = new_id(), new_id(), new_id()
    action = f"tests.{uuid.uuid4().hex[:20]}"
    for number, (name, fields) in enumerate(
        (
            (action, {"tenant_id": acme}),
            (action, {"tenant_id": acme, "connection_id": connection}),
            ("tests.other", {"tenant_id": acme, "connection_id": connection}),
            (action, {"tenant_id": globex}),
            (action, {}),
        )
    ):
        write(database, name, details={"n": number}, **fields)
    for event_filter, expected in (
        (EventFilter(actions=(action,)), [4, 3, 1, 0]),
        (EventFilter(acme), [2, 1, 0]),
        (EventFilter(connection_id=connection), [2, 1]),
        (EventFilter(connection_id=connection, actions=(action,)), [1]),
        (EventFilter(globex, connection), []),
        (EventFilter(acme, actions=("tests%",)), []),
    ):
        page = log.events(None, event_filter, limit=200, after=None)
        assert numbers(page) == expected, event_filter


def test_since_and_until_are_half_open_to_the_microsecond(database, log):
    tenant, begin, tick = new_id(), datetime(2030, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
    times = [begin + timedelta(seconds=30) * number for number in range(5)]
    for number, at in enumerate(times):
        row_id = UUID(int=first_id_at(at).int | number)
        write(database, tenant_id=tenant, id=row_id, at=at, details={"n": number})
    ancient = datetime(1970, 1, 1, tzinfo=UTC)
    for since, until, expected in (
        (times[1], times[4], [3, 2, 1]),
        (times[1] + tick, times[3] + tick, [3, 2]),
        (ancient, ancient + timedelta(days=1), []),
        (datetime(9998, 12, 31, tzinfo=UTC), None, []),
    ):
        event_filter = EventFilter(tenant, since=since, until=until)
        assert numbers(log.events(None, event_filter, limit=50, after=None)) == expected


# --- by which index ---

RARE = "tests.rare"
SESSION = "ASIAEXAMPLEEXAMPLE00"
INDEXES = {
    index.name: [column.name for column in index.columns] for index in AuditEvent.__table__.indexes
}
INDEXES["pk_audit_events"] = ["id"]


@pytest.fixture(scope="module")
def event_of_busy_log(database):
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
        for number in range(2_000)
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
    with database.engine.connect() as connection:  # which the database does by itself, later
        connection.exec_driver_sql("ANALYZE audit_events")
        connection.commit()
    return last


def filter_and_index(event, *, tenant, connection, what):
    """A filter for this event, and the columns of the index that answers it."""
    fields, columns = {}, ["id"]
    if tenant:
        fields, columns = {"tenant_id": event.tenant_id}, ["tenant_id", "id"]
    if connection:
        fields["connection_id"], columns = event.connection_id, ["connection_id", "id"]
    if what == SESSION:
        return EventFilter(access_key_id=SESSION, **fields), ["access_key_id", "id"]
    if what == RARE:
        columns.insert(-1, "action")
    return EventFilter(actions=(what,) if what else (), **fields), columns


# Whether the tenant is named, whether it is so by the scope of the key, whether a connection is
# named, and an action or a session; each second one with bounds in time.
COMBINATIONS = list(
    product(
        [(False, False), (True, False), (True, True)], [False, True], [None, ISSUED, RARE, SESSION]
    )
)


def both_orders(log):
    return partial(log.events, after=None), partial(
        log.events, after=UUID(int=0), oldest_first=True
    )


def test_each_combination_of_filters_is_one_range_of_an_index(database, log, event_of_busy_log):
    """With an equal value for each column of the index but the id, by which the range is in
    order.
    """
    at, day = event_of_busy_log.at, timedelta(days=1)
    for number, ((tenant, scoped), connection, what) in enumerate(COMBINATIONS):
        event_filter, columns = filter_and_index(
            event_of_busy_log, tenant=tenant, connection=connection, what=what
        )
        scope = None
        if scoped:
            scope, event_filter = event_filter.tenant_id, event_filter._replace(tenant_id=None)
        if (number + number // 4) % 2 == 0:
            event_filter = event_filter._replace(since=at - day, until=at + day)
        for read in both_orders(log):
            look = partial(read, scope, event_filter, limit=50)
            statement, parameters = statement_of(database, look)
            index, how = plan(database, statement, parameters)
            found = INDEXES[index], "TEMP B-TREE" in how
            assert found == (columns, False), f"{event_filter} {how}"
            # Times are bounds of the same range.
            bounds = re.findall(r"\bid ?([<>])", how.partition("Filter")[0])
            assert bounds.count("<") == bounds.count(">") > 0, f"{event_filter} {how}"
            if since := event_filter.since:
                first = first_id_at(since - audit.ID_AND_TIME)
                assert is_given(UUID(int=first.int - 1), parameters)


def test_the_events_of_a_key_or_an_address_are_found_whole_though_pages_are_short(
    database, log, monkeypatch
):
    """Issuances too: a tenant's may be few among its refusals."""
    monkeypatch.setattr(audit, "_WINDOW", 2)
    tenant, mine = new_id(), new_id()
    actors = [
        KEY,
        KEY._replace(id=str(mine), client_address="203.0.113.9"),
        KEY._replace(client_address="203.0.113.8"),
    ]
    write(database, ISSUED, tenant_id=tenant, details={"n": -1})
    for number in range(12):
        fields = {"tenant_id": tenant, "details": {"n": number}}
        write(database, f"tests.n{number % 4}", actor=actors[number % 3], **fields)
    write(database, "tests.n1", actor=actors[1], tenant_id=new_id())
    for fields, expected in (
        ({"api_key_id": mine}, [10, 7, 4, 1]),
        ({"client_address": "203.0.113.8"}, [11, 8, 5, 2]),
        ({"api_key_id": mine, "actions": ("tests.n1", "tests.n2")}, [10, 1]),
        ({"api_key_id": mine, "actions": ("tests.n0",)}, [4]),
        ({"actions": ("tests.n3", ISSUED)}, [11, 7, 3, -1]),
        ({"actions": ("tests.n1", "tests.n2")}, [10, 9, 6, 5, 2, 1]),
    ):
        read = partial(log.events, None, EventFilter(tenant, **fields), limit=3)
        page = read(after=None)
        whole = numbers(page)
        assert len(whole) <= 2 or fields["actions"] == ("tests.n1", "tests.n2"), "a window of two"
        while page.after is not None:
            page = read(after=page.after)
            whole += numbers(page)
        assert whole == expected, fields


def test_a_search_without_an_index_reads_a_bounded_part_of_the_log_for_a_page(
    database, event_of_busy_log, log, monkeypatch
):
    """Or a key that never acted would cost one way through all events of its tenant, and time
    out.
    """
    monkeypatch.setattr(audit, "_WINDOW", 100)
    tenant_id, after = event_of_busy_log.tenant_id, None
    whole = log.events(None, EventFilter(tenant_id), limit=200, after=None).items
    nobody = EventFilter(tenant_id, api_key_id=new_id())
    for last in (whole[99].id, whole[199].id):
        pages = []
        statement, parameters = statement_of(
            database,
            lambda: pages.append(log.events(None, nobody, limit=50, after=after)),  # noqa: B023
        )
        after = last
        assert pages == [([], last)]
        index, _ = plan(database, statement, parameters)
        assert INDEXES[index] == ["tenant_id", "id"]
        assert is_given(UUID(int=last.int - 1), parameters)


@pytest.mark.parametrize("bound", [False, True])
def test_another_tenants_connection_is_not_searched_for_ones_own_events(database, log, bound):
    connection, tenant = connection_row(database, tenant_row(database)), tenant_row(database)
    write(database, connection_id=connection)
    event_filter = EventFilter(None if bound else tenant, connection)
    for read in both_orders(log):
        pages = []
        look = partial(read, tenant if bound else None, event_filter, limit=9)
        statement, _ = statement_of(database, lambda look=look: pages.append(look()))  # noqa: B023
        assert pages == [([], None)]
        assert "FROM audit_events" not in statement


def is_given(row_id, parameters):
    values = [*parameters.values()] if isinstance(parameters, dict) else parameters
    return row_id in values


def statement_of(database, read):
    """The last statement that reads events, or else the last one."""
    with statements(database) as executed:
        read()
    of_events = (each for each in reversed(executed) if "FROM audit_events" in each[0])
    return next(of_events, executed[-1])


def plan(database, statement, parameters):
    """The index by which the database looks for these events, and how it says so."""
    with database.engine.connect() as connection:
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
