"""How often connections are proven, and what goes before routine proofs."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest
import sqlalchemy
import structlog

from app.clock import now
from app.ids import RoleArn, new_id
from app.limits.counting_in_memory import Rates
from app.proofs.schedule import (
    ProofInterval,
    RoutineInterval,
    proofs_a_second,
    routine_proofs_a_second,
)
from app.services import Services
from app.store.models import Connection, Trigger
from dev.stack import ROOT
from tests.conftest import make_config
from tests.support.databases import NOWHERE
from tests.support.own_services import own_services
from tests.support.rows import ADMIN, NO_ROLE, connection_rows, plan, tenant_row


@pytest.fixture(scope="module")
def services(request, aws, vendor) -> Iterator[Services]:
    with own_services() as services:
        yield services


PROVEN = {
    "role_arn": NO_ROLE.arn,
    "role_unique_id": NO_ROLE.unique_id,
    "due_for": Trigger.SCHEDULED,
    "proof_id": new_id(),
}


@pytest.fixture(scope="module")
def late_connections(services):
    """Ten tenants with a hundred proven connections each, all of them late by some seconds."""
    made, at = [], now()
    rows = [
        PROVEN
        | {"role_arn": f"{NO_ROLE.arn}-{number}", "due_at": at - timedelta(seconds=1 + number)}
        for number in range(100)
    ]
    for _ in range(10):
        made += connection_rows(services.db, tenant_row(services.db), rows)
    return made


def test_the_interval_grows_with_the_connections_and_they_are_counted_once_a_minute(
    services, late_connections, monkeypatch
):
    """Half of the budget can't carry them: three calls each and some more, one call a second."""
    config = make_config(NOWHERE, sts_budget=2, reprove_every=600)
    interval, counts = RoutineInterval(services.db, config), []
    inner = interval._count
    monkeypatch.setattr(interval, "_count", lambda: counts.append(1) or inner())
    with structlog.testing.capture_logs() as logs:
        grown = interval.current()
        assert (grown.connections, grown.configured, grown.seconds) == (1000, 600, 3300)
        assert interval.current() == grown
        assert len(counts) == 1
        assert time.monotonic() + 50 < interval._until <= time.monotonic() + 60
        monkeypatch.setattr(interval, "_until", 0.0)
        assert interval.current() == grown
        monkeypatch.setattr(interval, "_proofs_a_second", 100.0)
        monkeypatch.setattr(interval, "_until", 0.0)
        assert interval.current().seconds == 600
    assert (len(counts), [log["event"] for log in logs]) == (3, ["proofs.slowed"])


@pytest.mark.parametrize(
    ("own_roles", "most", "urgent"),
    [(["canary"], 54_000, 20), (["stranger"], 54_000, 20), (["canary", "stranger"], 41_000, 16)],
)
def test_half_of_a_budget_of_100_carries_as_many_an_hour_as_the_guide_says(own_roles, most, urgent):
    """A stranger is asked only beside a canary."""
    arns = {
        f"{name}_role_arn": RoleArn.parse(f"arn:aws:iam::444455556666:role/deputy-{name}")
        for name in own_roles
    }
    config = make_config(NOWHERE, **{"sts_budget": 100, "canary_role_arn": None} | arns)
    carried = [
        ProofInterval.for_connections(3600, number, routine_proofs_a_second(config.proofs)).seconds
        for number in (most, most + 1000)
    ]
    assert carried == [3600, 4500]
    assert f"{most:,} connections an hour" in (ROOT / "docs" / "monitoring.md").read_text().replace(
        "\n", " "
    )
    assert proofs_a_second(config.proofs) == urgent


def test_routine_claims_are_the_longest_due_and_urgent_ones_are_others(services, late_connections):
    urgent = connection_rows(
        services.db,
        tenant_row(services.db),
        [{"role_arn": NO_ROLE.arn, "role_unique_id": "AROAX", "due_at": now()}],
    )
    assert [claim.connection_id for claim in services.proof_queue.claim(500)] == urgent
    claims = services.proof_queue.claim_routine(20)
    assert {claim.connection_id for claim in claims} == {
        connection for k, connection in enumerate(late_connections) if k % 100 >= 98
    }


def test_a_claim_reads_a_range_of_one_index(services, late_connections):
    with services.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(sqlalchemy.text("ANALYZE"))
    routine = plan(services.db, services.proof_queue.oldest_due, of="connections.due_at")
    assert "ix_connections_due_routine" in routine, routine
    urgent = plan(services.db, lambda: services.proof_queue.claim(1), of="connections.id")
    assert "ix_connections_due_urgent" in urgent, urgent


def test_the_slots_of_a_suspended_tenant_pass(services):
    tenant = tenant_row(services.db)
    due = PROVEN | {"due_at": now() - timedelta(days=1)}
    [connection] = connection_rows(services.db, tenant, [due])
    services.tenants.suspend(ADMIN, tenant, reason="a test")
    [claim] = services.proof_queue.claim_routine(1)
    assert claim.connection_id == connection
    assert not services.proof_queue.prove(claim)
    with services.db.read() as db:
        row = db.get_one(Connection, connection)
    assert row.due_at > now() + timedelta(minutes=10)
    assert row.tried_at is None


def test_a_suspended_connection_does_not_slow_down_the_others(services):
    def counted():
        return RoutineInterval(services.db, services.config).current().connections

    before, tenant = counted(), tenant_row(services.db)
    due = PROVEN | {"due_at": now() + timedelta(hours=1)}
    [connection] = connection_rows(services.db, tenant, [due])
    assert counted() == before + 1
    services.connections.suspend(ADMIN, tenant, connection, reason="a test")
    assert counted() == before


def test_routine_calls_get_half_of_the_budget():
    """The other half is free for what is urgent, however many routine proofs wait."""
    rates = Rates(make_config(NOWHERE, sts_budget=10), None)
    with ExitStack() as under_way:
        for _ in range(5):
            under_way.enter_context(rates.routine_call())
        assert rates._routine._begin() > 0, "a sixth has to wait"
        for _ in range(5):
            under_way.enter_context(rates.background_call())
        assert rates._sts._begin() > 0
