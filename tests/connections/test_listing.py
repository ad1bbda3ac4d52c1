"""A tenant's connections by urgency, as its onboarding page lists them: each part is one range
of one index.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import pytest
import sqlalchemy
from sqlalchemy import event, insert

from app import services as composition
from app.connections.listing import ConnectionFilter
from app.connections.urgency import ListPosition, Urgency
from app.ids import new_id
from app.store.models import Connection, ConnectionStatus as S, Proof, Verdict
from tests.conftest import make_config
from tests.support.databases import new_database
from tests.support.rows import ADMIN

AT = datetime(2026, 1, 31, tzinfo=UTC)
# status, verdict of the latest proof
KINDS = [
    ("verified", "proven"), ("pending", "unassumable"), ("pending", None),
    ("broken", "unassumable"), ("insecure", "insecure"), ("suspended", "proven"),
]  # fmt: skip


@pytest.fixture(scope="module")
def services(request) -> Iterator[composition.Services]:
    with new_database() as url:
        built = composition.Services(make_config(url))
        yield built
        built.db.engine.dispose()


def populate(services, count, others=None):
    """A tenant with so many connections of each kind, and another tenant with as many, or so
    many.
    """
    tenants = [services.tenants.create(ADMIN, name=name) for name in ("Acme", "Globex")]
    connections, proofs = [], []
    for tenant in tenants:
        for number in range(count if tenant is tenants[0] else others or count):
            for status, verdict in KINDS:
                connection, proof = new_id(), new_id()
                connections.append(
                    {
                        "id": connection,
                        "tenant_id": tenant.id,
                        "external_id_id": tenant.current.id,
                        "role_arn": f"arn:aws:iam::123456789012:role/deputy-{connection.hex}",
                        "account_id": f"{number:012d}",
                        "permission_set": "inventory",
                        "status": status,
                        "role_unique_id": "AROAEXAMPLE",
                        "verified_at": AT,
                        "proof_id": proof if verdict else None,
                        "refuses": (status, verdict) == ("pending", "unassumable"),
                    }
                )
                if verdict:
                    proofs.append(
                        {
                            "id": proof,
                            "tenant_id": tenant.id,
                            "connection_id": connection,
                            "verdict": verdict,
                            "checks": [],
                            "trigger": "created",
                            "first_at": AT,
                            "checked_at": AT,
                        }
                    )
    with services.db.engine.begin() as db:
        db.execute(insert(Connection), connections)
        db.execute(insert(Proof), proofs)
    with services.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(sqlalchemy.text("VACUUM ANALYZE"))
    return tenants[0]


@pytest.fixture(scope="module")
def busy_tenant(services):
    """One of two tenants with many connections."""
    return populate(services, 100, others=1000)


def by_urgency(services, tenant, *, limit, start):
    return services.listing.list_by_urgency(ADMIN, tenant.id, limit=limit, start=start, among=S)


def everything(services, tenant, limit):
    """All of the list, part by part."""
    found, start = [], None
    while True:
        part = by_urgency(services, tenant, limit=limit, start=start)
        found += part.items
        if part.rest is None:
            return found
        start = ListPosition.parse(str(part.rest))


def test_the_parts_together_are_all_connections_in_the_order_of_urgency(services):
    tenant = populate(services, 3)
    found = everything(services, tenant, 100)
    for limit in (1, 4, 7):
        assert [connection.id for connection in everything(services, tenant, limit)] == [
            it.id for it in found
        ], limit
    assert [
        (connection.status.value, connection.proof and connection.proof.verdict.value)
        for connection in found[::3]
    ] == [KINDS[4], KINDS[3], KINDS[1], KINDS[2], KINDS[0], KINDS[5]]
    assert len({connection.id for connection in found}) == 18
    for first in range(0, 18, 3):
        ids = [connection.id for connection in found[first : first + 3]]
        assert ids == sorted(ids, reverse=True), "newest first"

    part = by_urgency(services, tenant, limit=4, start=ListPosition(Urgency.WAITING))
    assert [connection.status.value for connection in part.items] == ["pending"] * 3 + ["verified"]
    assert part.rest.urgency is Urgency.CONNECTED


def plans(services, look, table="connections"):
    """How the database reads the table for this look, statement by statement."""
    asked = []

    def note(_connection, _cursor, statement, parameters, *_):
        if f"FROM {table}" in statement:
            asked.append((statement, parameters))

    event.listen(services.db.engine, "before_cursor_execute", note)
    try:
        look()
    finally:
        event.remove(services.db.engine, "before_cursor_execute", note)
    with services.db.engine.connect() as connection:
        return [
            str(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all())
            for statement, parameters in asked
        ]


def assert_nothing_is_sorted(plan):
    for part in ("Sort", "Seq Scan on connections"):
        assert part not in plan, plan


def test_each_part_is_a_range_of_one_index_and_nothing_is_sorted(services, busy_tenant):
    places = [None, *(ListPosition(urgency, new_id()) for urgency in Urgency)]
    for place in places:
        found = plans(
            services, lambda place=place: by_urgency(services, busy_tenant, limit=25, start=place)
        )
        assert 1 <= len(found) <= 6
        for plan in found:
            assert "ix_connections_standing" in plan, plan
            assert_nothing_is_sorted(plan)


def test_counting_by_status_reads_one_tenants_range_of_an_index(services, busy_tenant):
    (plan,) = plans(services, lambda: services.listing.summary(ADMIN, busy_tenant.id))
    assert "ix_connections_standing" in plan, plan
    assert services.listing.summary(ADMIN, busy_tenant.id) == {
        "broken": 100, "insecure": 100, "pending": 200, "suspended": 100, "verified": 100,
    }  # fmt: skip


def test_several_statuses_of_a_tenant_are_read_among_its_own_connections(services, busy_tenant):
    wanted = ConnectionFilter(tenant_id=busy_tenant.id, statuses=(S.VERIFIED, S.BROKEN))
    (plan,) = plans(services, lambda: services.listing.list(ADMIN, wanted, limit=50, after=None))
    assert "ix_connections_status" not in plan, plan


def test_a_list_reads_ranges_of_an_index_that_have_no_deleted_connections(services, busy_tenant):
    """Their rows are kept, and a tenant may have any number of them."""
    for wanted, index in (
        (ConnectionFilter(tenant_id=busy_tenant.id), "ix_connections_standing"),
        (ConnectionFilter(), "ix_connections_status"),
    ):
        look = partial(services.listing.list, ADMIN, wanted, limit=50, after=None)
        (plan,) = plans(services, look)
        assert index in plan, plan


@pytest.mark.parametrize("has_update", [True, False])
@pytest.mark.usefixtures("busy_tenant")
def test_updates_are_looked_for_in_order_and_nothing_is_sorted(services, has_update):
    """No index tells them apart, so a page costs at most one way through the table."""
    wanted = ConnectionFilter(update_available=has_update)
    (plan,) = plans(services, lambda: services.listing.list(ADMIN, wanted, limit=50, after=None))
    assert_nothing_is_sorted(plan)


@pytest.mark.parametrize(
    ("status", "verdict", "found_by_account", "refuses"),
    [
        (S.PENDING, Verdict.UNASSUMABLE, False, True),
        (S.PENDING, Verdict.UNASSUMABLE, True, False),  # there is no stack yet to repair
        *(
            (S.PENDING, verdict, False, False)
            for verdict in Verdict
            if verdict is not Verdict.UNASSUMABLE
        ),
        *((status, Verdict.UNASSUMABLE, False, False) for status in (S.VERIFIED, S.BROKEN)),
    ],
)
def test_only_a_pending_role_that_was_refused_refuses(status, verdict, found_by_account, refuses):
    connection = Connection(
        id=new_id(),
        status=status,
        version=1,
        found_by_account=found_by_account,
        refuses=not refuses,
        tenant_id=new_id(),
    )
    proof = Proof(id=new_id(), verdict=verdict, checks=[], checked_at=AT)
    connection.apply_verdict(proof, "AROAEXAMPLE")
    assert connection.refuses is refuses
    if refuses:
        connection.delete(AT, bound=False)
        assert not connection.refuses
