"""What becomes of a connection when its role changes after the first day, and when the mistake
is ours. The clock is moved.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

import pytest
import time_machine

from app.factory import create_app
from app.store.models import Connection
from tests.conftest import make_config
from tests.model.stage import without_sockets
from tests.proofs.test_canary import roles_of
from tests.support.cast import Customer, World, path_of, without_external_id
from tests.support.databases import new_database

HOUR = 3600


class Fleet:
    """Connections of several tenants on a database of their own, a worker, and a clock that the
    test moves.
    """

    def __init__(self, aws, url, clock, **settings):
        with without_sockets(aws):
            app = create_app(make_config(url, sts_budget=6000, **settings))
        app.testing = False
        self.services, self.clock = app.extensions["deputy"], clock
        self.world = World.of(aws, app)
        self.made: list[dict] = []

    def connect(self, *, tenants):
        made = []
        for _ in range(tenants):
            tenant = self.world.tenant()
            kit = self.world.kit(tenant)
            customer = Customer(self.world.aws)
            connection = self.world.connection(tenant, customer)
            made.append(connection | {"customer": customer, "kit": kit})
        self.made += made
        return made

    def loosen(self, connection):
        kit = connection["kit"]
        connection["customer"].retrust(kit["role_name"], without_external_id(kit["trust_policy"]))

    def repair(self, connection):
        connection["customer"].retrust(
            connection["kit"]["role_name"], connection["kit"]["trust_policy"]
        )

    def remove(self, connection):
        connection["customer"].remove_role(connection["kit"]["role_name"])

    def row(self, connection):
        with self.services.db.read() as db:
            return db.get_one(Connection, UUID(connection["id"]))

    def status(self, connection):
        return self.row(connection).status.value

    def pass_time(self, seconds):
        """So long, with a worker that proves what is due at the end."""
        self.clock.shift(seconds)
        self.work()

    def work(self):
        queue = self.services.proof_queue
        while claims := [*queue.claim(50), *queue.claim_routine(50)]:
            for claim in claims:
                queue.prove(claim)

    def prove(self, connection):
        """When it is due, and this one alone."""
        due = self.row(connection).due_at
        self.clock.move_to(max(due, datetime.now(due.tzinfo)) + timedelta(seconds=0.1))
        [claim] = [
            claim
            for claim in self.services.proof_queue.claim_routine(500)
            if claim.connection_id == UUID(connection["id"])
        ]
        assert self.services.proof_queue.prove(claim)

    def events(self, connection, action):
        return self.world.audit(connection_id=connection["id"], action=action)

    def issue(self, connection, **options):
        return self.world.admin("POST", path_of(connection, "/credentials"), **options)


@contextmanager
def deployed(aws, **settings):
    with new_database() as url, time_machine.travel(datetime.now().astimezone()) as clock:
        fleet = Fleet(aws, url, clock, **settings)
        yield fleet
        fleet.services.db.engine.dispose()


@pytest.fixture(scope="module")
def shared_fleet(aws, vendor) -> Iterator[Fleet]:
    """The clock moves on from test to test, as the deployment is one."""
    with deployed(aws) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared_fleet) -> Iterator[Fleet]:
    """Without connections."""
    yield shared_fleet
    for connection in shared_fleet.made:
        shared_fleet.world.admin("DELETE", path_of(connection), expect=204)
    shared_fleet.made.clear()


def test_a_loosened_trust_policy_stops_issuing_at_the_next_routine_proof(fleet):
    [connection] = fleet.connect(tenants=1)
    assert len(fleet.events(connection, "connection.verified")) == 1
    assert fleet.events(connection, "connection.awaits_approval") == []
    fleet.issue(connection)
    fleet.pass_time(HOUR)
    last = fleet.row(connection).verified_at
    fleet.loosen(connection)
    fleet.pass_time(2 * HOUR)
    fleet.world.admin.refused(
        "POST", path_of(connection, "/credentials"), expect=409, code="connection_not_verified"
    )
    found = fleet.world.read(connection)
    assert (found["status"], found["why"]) == ("insecure", "The role now accepts any External ID.")
    [event] = fleet.events(connection, "connection.proof_failed")
    details = event["details"]
    assert details["last_proven_at"] == last.isoformat()
    found_at = datetime.fromisoformat(details["found_at"])
    assert 0 <= details["exposed_for_seconds_at_most"] - (found_at - last).total_seconds() < 1
    assert 2 * HOUR <= details["exposed_for_seconds_at_most"] < 2.2 * HOUR
    [newest, oldest] = fleet.world.admin("GET", path_of(connection, "/proofs"))["items"]
    assert (newest["verdict"], newest["trigger"], oldest["verdict"]) == (
        "insecure",
        "scheduled",
        "proven",
    )
    fleet.repair(connection)
    fleet.pass_time(2 * HOUR)
    assert fleet.status(connection) == "verified"
    fleet.issue(connection)


def test_a_role_that_fails_every_hour_has_one_event(fleet):
    loose, gone = fleet.connect(tenants=2)
    fleet.loosen(loose)
    fleet.remove(gone)
    for _ in range(3):
        fleet.pass_time(2 * HOUR)
    for connection, status, inconclusive in ((loose, "insecure", 0), (gone, "broken", 1)):
        assert fleet.status(connection) == status
        assert fleet.row(connection).proof.count >= 2, "it was proven again"
        assert len(fleet.events(connection, "connection.proof_failed")) == 1
        assert len(fleet.events(connection, "connection.proof_inconclusive")) == inconclusive


def test_only_a_second_refusal_a_minute_later_breaks_a_connection(fleet):
    """Requests that are refused do not make it due again."""
    [connection] = fleet.connect(tenants=1)
    fleet.remove(connection)
    fleet.prove(connection)
    row = first = fleet.row(connection)
    assert (row.status.value, row.proof.verdict.value) == ("verified", "inconclusive")
    assert row.due_at - row.refusing_since == timedelta(minutes=1)
    assert row.proof.checks[0]["outcome"] == "inconclusive"
    assert "asked again in a minute" in row.proof.checks[0]["detail"]
    assert fleet.world.read(connection)["issues"]
    fleet.world.admin.refused(
        "POST", path_of(connection, "/credentials"), expect=409, code="role_refused"
    )
    fleet.work()
    assert fleet.row(connection).tried_at == first.tried_at
    fleet.world.admin("POST", path_of(connection, "/report-refused"), expect=202)
    fleet.clock.shift(5)
    fleet.work()
    row = fleet.row(connection)
    assert (row.status.value, row.refusing_since) == ("verified", first.refusing_since), (
        "a sooner one does not count"
    )
    fleet.pass_time(61)
    row = fleet.row(connection)
    assert row.status.value == "broken"
    assert row.why == "The role now refuses this tenant's External ID, or was deleted."
    [broken] = fleet.events(connection, "connection.proof_failed")
    [doubted] = fleet.events(connection, "connection.proof_inconclusive")
    assert (broken["outcome"], doubted["outcome"]) == ("refused", "failed")
    assert "exposed_for_seconds_at_most" in broken["details"]
    assert "exposed_for_seconds_at_most" not in doubted["details"]

    fleet.pass_time(20 * 24 * HOUR)
    row = fleet.row(connection)
    assert row.status.value == "broken"
    assert row.due_at - row.tried_at <= timedelta(hours=1.3), "it is tried like any other"
    kit = connection["kit"]
    connection["customer"].role(kit["role_name"], kit["trust_policy"])
    fleet.pass_time(2 * HOUR)
    assert fleet.status(connection) == "verified"


def test_an_insecure_connection_is_broken_by_its_second_refusal_as_well(fleet):
    [connection] = fleet.connect(tenants=1)
    fleet.loosen(connection)
    fleet.prove(connection)
    assert fleet.status(connection) == "insecure"
    fleet.remove(connection)
    fleet.prove(connection)
    row = fleet.row(connection)
    assert (row.status.value, row.proof.verdict.value) == ("insecure", "inconclusive")
    fleet.pass_time(61)
    assert fleet.status(connection) == "broken"


def test_where_proofs_come_sooner_than_a_minute_so_does_the_second_refusal(aws, vendor):
    with deployed(aws, reprove_every=20) as fleet:
        [connection] = fleet.connect(tenants=1)
        fleet.remove(connection)
        fleet.prove(connection)
        row = fleet.row(connection)
        assert row.status.value == "verified"
        assert row.due_at - row.refusing_since <= timedelta(seconds=20)
        fleet.pass_time(19)
        assert fleet.status(connection) == "verified"
        fleet.pass_time(1.5)
        fleet.pass_time(20)
        assert fleet.status(connection) == "broken"


def test_an_acceptance_between_two_refusals_begins_again(fleet):
    [connection] = fleet.connect(tenants=1)
    for _ in range(2):
        fleet.loosen(connection)
        fleet.remove(connection)
        fleet.prove(connection)
        assert fleet.row(connection).refusing_since
        kit = connection["kit"]
        connection["customer"].role(kit["role_name"], kit["trust_policy"])
        fleet.prove(connection)
        row = fleet.row(connection)
        assert (row.status.value, row.refusing_since) == ("verified", None)


def test_what_a_faulty_policy_of_ours_broke_is_repaired_by_the_next_proof(fleet, faults):
    made = fleet.connect(tenants=2)
    fleet.pass_time(HOUR)
    faults.add("deny")
    fleet.pass_time(2 * HOUR)
    assert {fleet.status(connection) for connection in made} == {"verified"}, (
        "a first refusal breaks nothing"
    )
    fleet.pass_time(61)
    assert {fleet.status(connection) for connection in made} == {"broken"}
    fleet.issue(made[0], expect=409)
    faults.clear()
    fleet.pass_time(2 * HOUR)
    assert {fleet.status(connection) for connection in made} == {"verified"}
    fleet.issue(made[0])


@pytest.mark.parametrize(("canary", "status"), [("sighted", "broken"), ("lost", "verified")])
def test_a_second_refusal_counts_only_if_the_canary_lets_us_in(
    aws, canary_stack, faults, canary, status
):
    """A canary that is lost may be refused by the very mistake that makes the roles refuse."""
    if canary == "lost":
        faults.add("deny", role_arn=canary_stack.canary_role_arn)
    with deployed(aws, **roles_of(canary_stack)) as fleet:
        [connection] = fleet.connect(tenants=1)
        fleet.pass_time(HOUR)
        faults.add("deny", role_arn=connection["role_arn"])
        for _ in range(2):
            fleet.pass_time(2 * HOUR)
            fleet.pass_time(61)
        assert fleet.status(connection) == status
        assert fleet.services.verification._canary._last.sight == canary


@pytest.mark.parametrize("status", ["broken", "insecure"])
def test_a_role_that_is_not_proven_any_more_gets_the_full_proof_on_its_schedule(fleet, status):
    """Only a proven role's last acceptance stands for the first call: IAM may still be spreading
    a repair.
    """
    [connection] = fleet.connect(tenants=1)
    if status == "broken":
        other = json.dumps(connection["kit"]["trust_policy"]).replace(
            connection["external_id"], "dpy-another"
        )
        connection["customer"].retrust(connection["kit"]["role_name"], json.loads(other))
    else:
        fleet.loosen(connection)
    assert fleet.world.verify(connection)["status"] == status
    fleet.repair(connection)
    before = len(fleet.world.calls_for(connection["role_arn"]))
    fleet.pass_time(2 * HOUR)
    assert fleet.status(connection) == "verified"
    sent = [call.external_id for call in fleet.world.calls_for(connection["role_arn"])[before:]]
    assert [it == connection["external_id"] for it in sent] == [True, False, False, True]
