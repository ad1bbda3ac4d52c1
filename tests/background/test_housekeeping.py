"""Housekeeping deletes old registrations, a bounded number at a time, in both kinds of
background workers.
"""

import threading
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy

from app import services as composition
from app.background import housekeeping
from app.background.celery_app import create_celery
from app.background.single_machine import SingleMachineWorker
from app.clock import now
from app.ids import first_id_at, new_id
from app.store.database import SYSTEM
from app.store.models import Registration
from tests.conftest import make_config
from tests.support.databases import new_database
from tests.support.housekeeping import tidy
from tests.support.rows import at_once, tenant_row
from tests.support.waiting import until

DAY = timedelta(days=1)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_services(request):
    with new_database(request.param) as url:
        found = composition.Services(make_config(url))
        yield found
        found.db.engine.dispose()


@pytest.fixture
def services(shared_services) -> composition.Services:
    """With no registrations, and no secret key noted."""
    with shared_services.db.write(SYSTEM) as db:
        db.execute(sqlalchemy.delete(Registration))
    return shared_services


def registrations(services, *ages: timedelta) -> list:
    """The oldest first, as they come; their ids."""
    tenant = tenant_row(services.db)
    rows = [
        Registration(
            id=UUID(int=first_id_at(now() - age).int | number),
            tenant_id=tenant,
            stack_id="a stack",
            request_id=str(new_id()),
            created_at=now() - age,
        )
        for number, age in enumerate(ages)
    ]
    ids = [row.id for row in rows]
    with services.db.write(SYSTEM) as db:
        db.add_all(rows)
    return ids


def left(services) -> list:
    with services.db.read() as db:
        return list(db.scalars(sqlalchemy.select(Registration.id).order_by(Registration.id)))


def test_a_registration_is_kept_for_30_days(services):
    """SQS keeps a message for 14 days at most: one that comes again must find what it did."""
    _, *kept = registrations(
        services, 30 * DAY + timedelta(minutes=1), 29.99 * DAY, 14 * DAY, 0 * DAY
    )
    assert tidy(services.db, 0) == 1
    assert left(services) == kept
    assert tidy(services.db, 0) == 0
    assert left(services) == kept


def test_a_background_worker_that_is_stopped_waits_for_no_pause(services, monkeypatch):
    monkeypatch.setattr("app.background.housekeeping._TOGETHER", 2)
    ids = registrations(services, *[40 * DAY] * 5)
    end = threading.Event()
    end.set()
    assert housekeeping.tidy(services.db, 0, end) == 2
    assert left(services) == ids[2:]


@pytest.mark.parametrize(
    "shared_services", ["postgresql"], indirect=True
)  # SQLite has one writer at a time
def test_rows_that_another_background_worker_deletes_are_not_waited_for(services):
    registrations(services, 40 * DAY)
    with holding(services, "DELETE FROM registrations"):
        assert tidy(services.db, 0) == 0
    assert left(services) == []


@contextmanager
def holding(services, statement: str):
    """Somebody is in the middle of it, for as long as this takes, and for five seconds at most."""
    begun, done = threading.Event(), threading.Event()

    def write() -> None:
        with services.db.write(SYSTEM) as db:
            db.execute(sqlalchemy.text(statement))
            begun.set()
            assert done.wait(60), "it was waited for"

    failed = []
    thread = threading.Thread(target=lambda: failed.extend(at_once([write])))
    thread.start()
    assert begun.wait(60)
    yield
    done.set()
    thread.join(10)
    assert failed == [None]


def keeping(tidied: list, ends: list):
    """Housekeeping that keeps with what it was called."""

    def kept(db, days, end) -> int:
        tidied.append(days)
        ends.append(end)
        return tidy(db, days)

    return kept


def test_the_background_worker_of_one_machine_tidies_seldom(services, monkeypatch):
    monkeypatch.setattr("app.background.parts._TICK", 0.01)
    rounds, tidied, ends = [], [], []
    claim = services.proof_queue.claim
    monkeypatch.setattr(
        "app.proofs.proof_queue.ProofQueue.claim", lambda _, most: rounds.append(1) or claim(most)
    )
    monkeypatch.setattr("app.background.single_machine.tidy", keeping(tidied, ends))
    kept = registrations(services, 40 * DAY, 1 * DAY)[1:]
    stop = threading.Event()
    thread = threading.Thread(target=SingleMachineWorker(services, stop).run)
    thread.start()
    until(lambda: len(rounds) > 5)
    stop.set()
    thread.join(10)
    assert left(services) == kept
    assert tidied == [400]
    assert ends[0].is_set(), "the pauses of housekeeping hold up no stop"


def test_celery_tidies_by_the_same_method(services, monkeypatch):
    tidied, ends = [], []
    monkeypatch.setattr(housekeeping, "tidy", keeping(tidied, ends))
    kept = registrations(services, 40 * DAY, 1 * DAY)[1:]
    celery = create_celery(services.config, lambda: services)
    [beat] = [
        entry for entry in celery.conf.beat_schedule.values() if entry["task"] == "deputy.tidy"
    ]
    assert beat["schedule"] >= 600
    celery.tasks[beat["task"]]()
    assert left(services) == kept
    assert tidied == [400]
    assert not ends[0].is_set()
    [beside] = celery.steps["worker"]
    stopped = beside(None)
    stopped._parts = []
    stopped.stop(None)
    assert ends[0].is_set(), "the pauses of housekeeping hold up no stop"
