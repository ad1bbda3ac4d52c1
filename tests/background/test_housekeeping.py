"""Housekeeping deletes old registrations, a bounded number at a time."""

import threading
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy

from app.background import housekeeping
from app.background.worker import run_worker
from app.clock import now
from app.ids import first_id_at, new_id
from app.services import Services
from app.store.database import SYSTEM
from app.store.models import Registration
from tests.support.housekeeping import tidy
from tests.support.own_services import own_services
from tests.support.rows import at_once, tenant_row
from tests.support.waiting import until

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def shared_services(request):
    with own_services() as services:
        yield services


@pytest.fixture
def services(shared_services) -> Services:
    """With no registrations."""
    with shared_services.db.write(SYSTEM) as db:
        db.execute(sqlalchemy.delete(Registration))
    return shared_services


def registrations(services, *ages):
    """The oldest first, as they come; their ids."""
    tenant = tenant_row(services.db)
    ids = [UUID(int=first_id_at(now() - age).int | number) for number, age in enumerate(ages)]
    with services.db.write(SYSTEM) as db:
        for row_id, age in zip(ids, ages, strict=True):
            row = {"tenant_id": tenant, "stack_id": "a stack", "request_id": str(new_id())}
            db.add(Registration(id=row_id, created_at=now() - age, **row))
    return ids


def left(services):
    with services.db.read() as db:
        return list(db.scalars(sqlalchemy.select(Registration.id).order_by(Registration.id)))


def test_a_registration_is_kept_for_30_days(services):
    """SQS keeps a message for 14 days at most: one that comes again must find what it did."""
    _, *kept = registrations(services, 30 * DAY + timedelta(minutes=1), 29.99 * DAY, 0 * DAY)
    for _ in range(2):
        tidy(services.db, 0)
        assert left(services) == kept


def test_a_background_worker_that_is_stopped_deletes_no_more(services):
    ids = registrations(services, *[40 * DAY] * 5)
    end = threading.Event()
    end.set()
    housekeeping.tidy(services.db, 0, end)
    assert left(services) == ids


def test_rows_that_another_background_worker_deletes_are_not_waited_for(services):
    registrations(services, 40 * DAY)
    begun, done = threading.Event(), threading.Event()

    def delete():
        with services.db.write(SYSTEM) as db:
            db.execute(sqlalchemy.delete(Registration))
            begun.set()
            assert done.wait(60), "it was waited for"

    def tidy_meanwhile():
        assert begun.wait(60)
        tidy(services.db, 0)
        done.set()

    assert at_once([delete, tidy_meanwhile]) == [None, None]
    assert left(services) == []


@pytest.fixture
def calls(monkeypatch) -> list:
    """The days and the end with which housekeeping was called."""
    calls = []

    def kept(db, days, end):
        calls.append((days, end))
        tidy(db, days)

    monkeypatch.setattr("app.background.worker.tidy", kept)
    monkeypatch.setattr(housekeeping, "tidy", kept)
    return calls


def test_the_background_worker_of_one_machine_tidies_seldom(services, calls, monkeypatch):
    monkeypatch.setattr("app.background.worker._TICK", 0.01)
    rounds, stop, claim = [], threading.Event(), services.proof_queue.claim
    monkeypatch.setattr(
        "app.proofs.proof_queue.ProofQueue.claim", lambda _, *most: rounds.append(1) or claim(*most)
    )
    _, kept = registrations(services, 40 * DAY, 1 * DAY)
    thread = threading.Thread(target=run_worker, args=(services, stop))
    thread.start()
    until(lambda: len(rounds) > 5)
    stop.set()
    thread.join(10)
    assert left(services) == [kept]
    [(days, end)] = calls
    assert days == 400
    assert end.is_set(), "housekeeping holds up no stop"
