"""Heartbeats: a worker's row says that it lives, how far it has come, and whether its clock is
right.
"""

import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy
import time_machine

from app.clock import now
from app.health import heartbeats
from app.health.heartbeats import Heartbeat, QueueState
from app.store.database import SYSTEM, Database
from app.store.models import BackgroundWorker
from tests.support.databases import new_database
from tests.support.housekeeping import tidy


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_database(request):
    with new_database(request.param) as url:
        made = Database(url)
        yield made
        made.engine.dispose()


@pytest.fixture
def quiet_database(shared_database):
    """One that has seen no worker."""
    with shared_database.write(SYSTEM) as db:
        db.execute(sqlalchemy.delete(BackgroundWorker))
    return shared_database


def rows(database) -> list[BackgroundWorker]:
    with database.read() as db:
        return list(db.scalars(sqlalchemy.select(BackgroundWorker)))


def seen(database) -> heartbeats.WorkersSeen:
    with database.read() as db:
        return heartbeats.seen(db)


def age(database, row_id, seconds: float) -> None:
    with database.write(SYSTEM) as db:
        db.get_one(BackgroundWorker, row_id).seen_at = now() - timedelta(seconds=seconds)


def test_a_background_worker_has_one_row_which_says_who_it_is_and_when_it_was_seen(quiet_database):
    heartbeat = Heartbeat(quiet_database, "flask", None)
    heartbeat.beat()
    [first] = rows(quiet_database)
    assert (first.kind, first.pid, first.heard_at, first.unanswered_at) == (
        "flask",
        os.getpid(),
        None,
        None,
    )
    assert first.host
    age(quiet_database, first.id, 50)
    heartbeat.beat()
    [again] = rows(quiet_database)
    assert (again.id, again.started_at) == (first.id, first.started_at)
    assert abs(now() - again.seen_at) < timedelta(seconds=30)
    Heartbeat(quiet_database, "celery", None).beat()
    assert len(rows(quiet_database)) == 2
    heartbeat.end()
    assert [row.kind for row in rows(quiet_database)] == ["celery"]


def test_a_background_worker_counts_for_a_minute_and_its_row_is_deleted_after_a_day(quiet_database):
    for _ in range(3):
        Heartbeat(quiet_database, "flask", None).beat()
    one, two, three = rows(quiet_database)
    age(quiet_database, one.id, 55)
    age(quiet_database, two.id, 65)
    age(quiet_database, three.id, 24 * 3600 + 60)
    assert [row.id for row in seen(quiet_database).lately] == [one.id]
    assert tidy(quiet_database, 0) == 1
    assert {row.id for row in rows(quiet_database)} == {one.id, two.id}


@pytest.mark.parametrize("hours", [-1, 1])
def test_times_are_the_databases_and_not_the_background_workers(quiet_database, hours):
    with time_machine.travel(now() + timedelta(hours=hours), tick=True):
        Heartbeat(quiet_database, "flask", None).beat()
    [row] = seen(quiet_database).lately
    assert row.clock_ahead == pytest.approx(hours * 3600, abs=30)
    Heartbeat(quiet_database, "flask", None).beat()
    right = min(rows(quiet_database), key=lambda row: abs(row.clock_ahead))
    assert abs(right.clock_ahead) < 1


def sent(seconds_ago: float):
    return now() - timedelta(seconds=seconds_ago)


def test_an_empty_queue_has_been_heard_by_now_and_a_backlog_as_far_as_it_was_sent():
    queue_state = QueueState()
    assert (queue_state.heard_at, queue_state.unanswered_at) == (None, None)
    queue_state.received({})
    assert now() - queue_state.heard_at < timedelta(seconds=30)
    old = sent(300)
    queue_state.received({"a": sent(10), "b": old})
    assert queue_state.heard_at == queue_state.unanswered_at == old, (
        "also while they are being answered"
    )
    queue_state.received({})
    assert queue_state.unanswered_at == old


def test_what_could_not_be_answered_is_remembered_until_it_is_or_is_a_dead_letter():
    queue_state = QueueState()
    old, new = sent(90), sent(20)
    queue_state.handled("a", old)
    queue_state.handled("b", new)
    queue_state.received({})
    assert queue_state.unanswered_at == old
    queue_state.handled("a", None)
    assert queue_state.unanswered_at == new
    queue_state.handled("b", None)
    queue_state.handled("c", None)
    assert queue_state.unanswered_at is None
    for number in range(2000):
        queue_state.handled(str(number), new)
    assert len(queue_state._unanswered) == 1000, "a flood is not remembered whole"


def test_a_dead_background_worker_tells_of_no_message_and_the_best_hearing_counts(quiet_database):
    told = [sent(40), sent(400), None]
    for heard_at, unanswered_at in zip(told, (None, sent(200), sent(500)), strict=True):
        queue_state = SimpleNamespace(heard_at=heard_at, unanswered_at=unanswered_at)
        Heartbeat(quiet_database, "flask", queue_state).beat()
    found = seen(quiet_database)
    assert found.heard_at == told[0]
    assert sent(501) < found.unanswered_at < sent(499)
    [dead] = [row for row in rows(quiet_database) if row.heard_at is None]
    age(quiet_database, dead.id, 120)
    assert sent(201) < seen(quiet_database).unanswered_at < sent(199)
