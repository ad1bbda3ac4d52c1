"""What is due is claimed by one, proven once, and never lost: with real
roles.
"""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy

from app.clock import now
from app.ids import new_id
from app.limits.counting_in_memory import CallBudget
from app.limits.limits import BACKGROUND_CALLS
from app.onboarding.kit_trust_policy import trust_policy
from app.proofs.proof_queue import LEASE
from app.services import Services
from app.store.database import SYSTEM
from app.store.models import AuditEvent, Connection, ConnectionStatus, Proof, Trigger, Verdict
from app.store.models.proof import ROUTINE
from bench.organization import most_in_a_second
from tests.support.cast import Customer
from tests.support.own_services import own_services
from tests.support.rows import ADMIN, Role, at_once, connection_row, connection_rows, tenant_row

S = ConnectionStatus


class Scene:
    """A database in which only what the test made is due."""

    def __init__(self, services, aws):
        self.services, self.due, self.db = services, services.proof_queue, services.db
        self.aws = aws
        self.nowhere = Role(
            f"arn:aws:iam::{Customer(aws).account}:role/deputy-late", "AROAEXAMPLEEXAMPLE01"
        )

    def pending(self, *, number=1, tenant=None, **changes):
        tenant = tenant or tenant_row(self.db)
        given = {
            "status": S.PENDING,
            "role_unique_id": None,
            "verified_at": None,
            "due_at": now(),
        } | changes
        return connection_row(self.db, tenant, self.nowhere, number=number, **given)

    def good(self):
        """A pending connection to a good role."""
        connection = self.pending()
        self.good_role(connection)
        return connection

    def proven(self):
        """A connection to a good role, once its first proof was made."""
        connection = self.good()
        self.prove()
        return connection

    def row(self, connection_id):
        with self.db.read() as db:
            return db.get(Connection, connection_id)

    def proofs(self, connection_id):
        with self.db.read() as db:
            return db.scalar(
                sqlalchemy.select(sqlalchemy.func.count()).where(
                    Proof.connection_id == connection_id
                )
            )

    def calls_for(self, connection_id):
        role_arn = self.row(connection_id).role_arn
        return [call for call in self.aws.sts_calls if call.role_arn == role_arn]

    def events(self, connection_id):
        with self.db.read() as db:
            query = sqlalchemy.select(AuditEvent.action).where(
                AuditEvent.connection_id == connection_id
            )
            return list(db.scalars(query.order_by(AuditEvent.id)))

    def claim(self):
        return [*self.due.claim(1), *self.due.claim_routine(1)]

    def prove(self, connection_id=None, **changes):
        """The claim of what is due now; of this connection, which is made due before."""
        if connection_id is not None:
            self.make_due(connection_id, **changes)
        [claim] = self.claim()
        assert self.due.prove(claim)

    def make_due(self, connection_id, **changes):
        with self.db.write(SYSTEM) as db:
            db.execute(
                sqlalchemy.update(Connection)
                .where(Connection.id == connection_id)
                .values({"due_at": now()} | changes)
            )

    def good_role(self, connection_id):
        """The role that the connection names comes to be, as its administrator should make it."""
        row = self.row(connection_id)
        customer = Customer(self.aws)
        customer.account = row.account_id
        customer.role(
            row.role_arn.rpartition("/")[2],
            trust_policy(self.services.config.aws.broker, row.external_id),
        )


@pytest.fixture(scope="module")
def services(request, aws, vendor) -> Iterator[Services]:
    with own_services(sts_budget=6000) as services:
        yield services


@pytest.fixture
def scene(services, aws) -> Scene:
    with services.db.write(SYSTEM) as db:  # what tests before this one left
        db.execute(sqlalchemy.update(Connection).values(due_at=None))
    return Scene(services, aws)


# Not a question about claims


def test_what_is_due_is_claimed_once(scene):
    tenant = tenant_row(scene.db)
    wanted = {scene.pending(number=number, tenant=tenant) for number in range(1, 41)}
    claims = [claim for claims in at_once([lambda: scene.due.claim(10)] * 8) for claim in claims]
    claims += scene.due.claim(100)
    assert len(claims) == len(wanted)
    assert {claim.connection_id for claim in claims} == wanted
    assert scene.due.claim(100) == []


def test_the_longest_due_come_first(scene):
    made = [scene.pending(due_at=now() - timedelta(seconds=seconds)) for seconds in (10, 30, 20)]
    assert [claim.connection_id for claim in scene.due.claim(2)] == [made[1], made[2]]


def flood(scene, *, rows, **changes):
    """A tenant with so many connections that have been due for an hour."""
    tenant = tenant_row(scene.db)
    role = {
        "role_unique_id": None,
        "status": S.PENDING,
        "verified_at": None,
        "due_at": now() - timedelta(hours=1),
    }
    wanted = [
        {"role_arn": f"{scene.nowhere.arn}-{number}", **role, **changes} for number in range(rows)
    ]
    connection_rows(scene.db, tenant, wanted)
    return tenant


def test_the_floods_of_seven_tenants_do_not_hold_up_an_eighth(scene):
    for number in range(7):
        flood(scene, rows=130, due_at=now() - timedelta(hours=2) + timedelta(minutes=number))
    waiting = scene.pending(due_at=now() - timedelta(minutes=30))
    assert waiting in {claim.connection_id for claim in scene.due.claim(16)}


@pytest.mark.parametrize("routine", [False, True], ids=["a first proof", "a turn"])
def test_another_tenants_flood_does_not_hold_up(scene, routine):
    """As when thousands of its roles change at once, each of which is then proven several times
    within a minute.
    """
    turn = {
        "status": S.VERIFIED,
        "role_unique_id": "AROAONE",
        "verified_at": now(),
        "due_for": Trigger.SCHEDULED,
    }
    changes, claim = (turn, scene.due.claim_routine) if routine else ({}, scene.due.claim)
    flooding = flood(scene, rows=200, **changes)
    victim = scene.pending(**changes)
    claims = claim(16)
    assert victim in {claim.connection_id for claim in claims}
    assert len(claims) == 16, "what others do not need goes to the tenant that has much to do"
    assert [claim.tenant_id for claim in claims].count(flooding) == 15


def test_a_tenant_whose_proofs_are_under_way_waits_for_those_of_the_others(scene):
    """Threads become free one by one, and each claim would otherwise begin with the oldest."""
    flooding, running = flood(scene, rows=200), []
    for _ in range(4):
        running += scene.due.claim(1, running)
    assert {claim.tenant_id for claim in running} == {flooding}
    victims = {scene.pending() for _ in range(2)}
    for _ in range(2):
        running += scene.due.claim(1, running)
    assert {claim.connection_id for claim in running[-2:]} == victims
    assert scene.due.claim(0, running) == []


def test_a_first_proof_comes_before_roles_that_were_tried(scene):
    tried = [flood(scene, rows=4, proof_id=new_id()) for _ in range(12)]
    new = scene.pending()
    claims = scene.due.claim(8)
    assert claims[0].connection_id == new
    assert len({claim.tenant_id for claim in claims} & set(tried)) == 7


def test_what_is_at_rest_is_not_due(scene):
    for status in (S.SUSPENDED, S.DELETED):
        scene.pending(status=status)
    scene.make_due(scene.pending(), due_at=None)
    scene.pending(due_at=now() + timedelta(minutes=1))
    tenant = tenant_row(scene.db)
    scene.pending(tenant=tenant)
    scene.services.tenants.suspend(ADMIN, tenant, reason="a test")
    assert scene.due.claim(100) == []


def test_a_claim_in_an_account_that_the_vendor_closed_waits_for_a_turn(scene):
    """A tenant can prepare thousands of them, and a suspension lasts."""
    tenant = tenant_row(scene.db)
    suspended, waiting = (scene.pending(number=number, tenant=tenant) for number in (1, 2))
    scene.services.connections.suspend(ADMIN, tenant, suspended, reason="a test")
    [claim] = scene.due.claim(10)
    assert claim.connection_id == waiting
    assert not scene.due.prove(claim)
    assert scene.calls_for(waiting) == []
    assert scene.row(waiting).due_at > now() + 5 * LEASE


def test_a_claim_that_nobody_finished_is_due_again_after_its_lease(scene):
    connection = scene.pending()
    [lost] = scene.due.claim(1)
    assert scene.row(connection).due_at == lost.lease
    assert timedelta(0) < lost.lease - now() <= LEASE
    scene.make_due(connection)  # the lease is over
    [again] = scene.due.claim(1)
    assert scene.due.prove(again)
    assert scene.proofs(connection) == 1


def test_a_role_that_comes_late_is_found(scene):
    """A refusal of a role that was never proven counts at once: its administrator reads what to
    change.
    """
    connection = scene.pending(due_since=now())
    began = scene.row(connection).due_since
    scene.prove()
    row = scene.row(connection)
    assert (row.status, row.due_at - began) == (S.PENDING, timedelta(seconds=5))
    scene.prove(connection)
    row = scene.row(connection)
    assert (row.proof.verdict, row.refuses) == (Verdict.UNASSUMABLE, True)
    scene.good_role(connection)
    scene.prove(connection)
    row = scene.row(connection)
    assert row.status is S.VERIFIED
    assert row.due_at - row.verified_at == timedelta(minutes=2)


def test_a_first_proof_is_repeated_twice_and_then_has_its_turns(scene):
    connection = scene.proven()
    for passed, then in ((2.5, 15), (15.5, None), (70, None)):
        since = now() - timedelta(minutes=passed)
        scene.prove(connection, due_since=since)
        row = scene.row(connection)
        assert row.status is S.VERIFIED
        soonest, latest = (timedelta(hours=share) for share in (0.25, 1.3))
        if then is None:
            assert soonest <= row.due_at - row.verified_at <= latest
        else:
            assert row.due_at <= since + timedelta(minutes=then)
    assert scene.proofs(connection) == 1
    assert scene.row(connection).proof.count == 4


def test_a_routine_proof_makes_three_calls_and_leaves_a_count(scene, faults):
    """No ID, a foreign one, our own: neither an event nor a row for a role that is as it was. A
    role that was made again gets a full proof. An unclear answer is asked for again.
    """
    connection = scene.proven()
    first, events = scene.row(connection).proof, scene.events(connection)
    calls = len(scene.calls_for(connection))
    scene.prove(connection)
    row = scene.row(connection)
    sent = [call.external_id for call in scene.calls_for(connection)[calls:]]
    assert (sent[0], sent[2], len(sent)) == (None, row.external_id, 3)
    assert sent[1] not in {None, row.external_id}
    assert (row.proof.id, row.proof.count, row.proof.trigger) == (first.id, 2, Trigger.CREATED)
    assert row.proof.first_at == first.checked_at < row.proof.checked_at == row.verified_at
    assert (scene.proofs(connection), scene.events(connection)) == (1, events)
    scene.prove(connection, role_unique_id="AROAANOTHER")
    row = scene.row(connection)
    assert row.role_unique_id != "AROAANOTHER"
    assert len(scene.calls_for(connection)) == calls + 3 + 7
    assert scene.proofs(connection) == 2
    assert scene.events(connection)[-1:] == ["connection.verified"]
    faults.add("error", action="AssumeRole", role_arn=row.role_arn)
    scene.prove(connection, due_since=now() - timedelta(hours=1))
    row = scene.row(connection)
    assert row.status is S.VERIFIED
    assert timedelta(seconds=50) < row.due_at - now() <= timedelta(minutes=1)


def test_the_background_worker_leaves_alone_what_a_request_is_proving(
    scene, impatient, monkeypatch
):
    """Or each new role would be tried twice at once."""
    tenant, claimed = tenant_row(scene.db), []
    inner = scene.services.verification._prove_patiently

    def proving(*args):
        claimed.append(scene.due.claim(10))
        return inner(*args)

    monkeypatch.setattr(scene.services.verification, "_prove_patiently", proving)
    made = scene.services.connections.create(ADMIN, tenant, role_arn=scene.nowhere.arn)
    scene.services.connections.suspend(ADMIN, tenant, made.id, reason="a test")
    scene.services.connections.resume(ADMIN, tenant, made.id, reason="a test")
    assert claimed == [[], []]
    assert scene.row(made.id).due_at > now(), "and it is looked for again, by itself"


def test_what_was_suspended_meanwhile_is_left_alone(scene):
    tenant = tenant_row(scene.db)
    connection = scene.pending(tenant=tenant)
    [claim] = scene.claim()
    scene.services.connections.suspend(ADMIN, tenant, connection, reason="a test")
    assert not scene.due.prove(claim)
    assert (scene.row(connection).status, scene.proofs(connection)) == (S.SUSPENDED, 0)
    assert scene.row(connection).due_at is None
    scene.services.connections.resume(ADMIN, tenant, connection, reason="a test")
    assert scene.row(connection).due_at is not None


class SleepersTime:
    """Stands in for the module `time`: it passes when each of so many threads sleeps or has
    ended.
    """

    def __init__(self, threads):
        self._now, self._threads = 0.0, threads
        self._wakes: list[float] = []  # of each thread that sleeps
        self._changed = threading.Condition()

    def monotonic(self):
        return self._now

    def sleep(self, seconds):
        with self._changed:
            wakes = self._now + seconds
            self._wakes.append(wakes)
            self._pass()
            assert self._changed.wait_for(lambda: self._now >= wakes, 60)

    def end(self):
        """Called by a thread that never sleeps again."""
        with self._changed:
            self._threads -= 1
            self._pass()

    def _pass(self):
        if self._wakes and len(self._wakes) == self._threads:
            self._now = min(self._wakes)
            self._wakes = [wakes for wakes in self._wakes if wakes > self._now]
            self._changed.notify_all()


def test_no_second_has_more_calls_than_the_budget(monkeypatch):
    """Wherever AWS counts a call between its beginning and its end, here at the end; and no time
    is wasted.
    """
    clock = SleepersTime(16)
    monkeypatch.setattr("app.limits.counting_in_memory.time", clock)
    budget, numbers, counted = CallBudget(BACKGROUND_CALLS._replace(most=20)), iter(range(70)), []

    def work():
        for number in numbers:
            with budget.call():
                clock.sleep(0.25 * (number % 4 == 0))
                counted.append(clock.monotonic())
        clock.end()

    at_once([work] * 16)
    assert len(counted) == 70
    assert most_in_a_second(counted) <= 20
    assert 3 <= clock.monotonic() <= 4, "3 s for the first 60, and what the calls themselves take"


def test_a_call_that_fails_gives_its_place_back():
    budget = CallBudget(BACKGROUND_CALLS._replace(most=1))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), budget.call():
            raise ZeroDivisionError


@pytest.fixture
def taken_places(monkeypatch):
    """One for each place that a call took in a budget."""
    taken, found = CallBudget._begin, []
    monkeypatch.setattr(CallBudget, "_begin", lambda self: found.append(1) or taken(self))
    return found


def test_every_call_of_a_background_proof_is_within_its_budget_and_a_person_waits_for_none(
    scene, taken_places
):
    """Urgent are a first proof, a stack's message, a client's report and a rotation's next step:
    they do not wait for the half of routine proofs. Each call of those takes a place in both.
    """
    connection = scene.good()
    places_for_each_call = dict.fromkeys(
        (Trigger.CREATED, Trigger.REGISTERED, Trigger.ISSUING, Trigger.ROTATION), 1
    )
    for trigger, places in (places_for_each_call | {Trigger.SCHEDULED: 2}).items():
        scene.make_due(connection, due_for=trigger)
        [claim] = scene.claim()
        before = len(scene.aws.sts_times)
        taken_places.clear()
        assert scene.due.prove(claim)
        calls = len(scene.aws.sts_times) - before
        assert calls == (3 if trigger in ROUTINE else 5), trigger
        assert len(taken_places) == places * calls, trigger
    taken_places.clear()
    row = scene.row(connection)
    scene.services.verification.verify(ADMIN, row.tenant_id, connection, trigger=Trigger.REQUESTED)
    assert taken_places == []
