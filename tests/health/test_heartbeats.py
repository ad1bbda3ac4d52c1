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
from app.health.heartbeats import Heartbeat, QueueState, live_workers, oldest_unanswered
from app.store.database import SYSTEM, Database
from app.store.models import BackgroundWorker
from tests.support.databases import new_database
from tests.support.housekeeping import tidy


@pytest.fixture(scope="module")
def shared_database(request):
    with new_database() as url:
        made = Database(url)
        yield made
        made.engine.dispose()


@pytest.fixture
def quiet_database(shared_database):
    """One that has seen no worker."""
    with shared_database.write(SYSTEM) as db:
        db.execute(sqlalchemy.delete(BackgroundWorker))
    return shared_database


def rows(database):
    with database.read() as db:
        return list(db.scalars(sqlalchemy.select(BackgroundWorker)))


def read(database, look):
    with database.read() as db:
        return look(db)


def age(database, row_id, seconds):
    with database.write(SYSTEM) as db:
        db.get_one(BackgroundWorker, row_id).seen_at = now() - timedelta(seconds=seconds)


def test_a_background_worker_has_one_row_which_says_who_it_is_and_when_it_was_seen(quiet_database):
    heartbeat = Heartbeat(quiet_database, QueueState())
    heartbeat.beat()
    [first] = rows(quiet_database)
    assert first.pid == os.getpid()
    assert first.heard_at is first.unanswered_at is None
    assert first.host
    age(quiet_database, first.id, 50)
    heartbeat.beat()
    [again] = rows(quiet_database)
    assert (again.id, again.started_at) == (first.id, first.started_at)
    assert abs(now() - again.seen_at) < timedelta(seconds=30)
    Heartbeat(quiet_database, QueueState()).beat()
    heartbeat.end()
    assert [row.id == first.id for row in rows(quiet_database)] == [False]


def test_a_background_worker_counts_for_a_minute_and_its_row_is_deleted_after_a_day(quiet_database):
    for _ in range(3):
        Heartbeat(quiet_database, QueueState()).beat()
    live, silent, gone = [row.id for row in rows(quiet_database)]
    age(quiet_database, live, 55)
    age(quiet_database, silent, 65)
    age(quiet_database, gone, 24 * 3600 + 60)
    assert [row.id for row in read(quiet_database, live_workers)] == [live]
    tidy(quiet_database, 0)
    assert {row.id for row in rows(quiet_database)} == {live, silent}


@pytest.mark.parametrize("hours", [-1, 1])
def test_times_are_the_databases_and_not_the_background_workers(quiet_database, hours):
    with time_machine.travel(now() + timedelta(hours=hours), tick=True):
        Heartbeat(quiet_database, QueueState()).beat()
    [row] = read(quiet_database, live_workers)
    assert row.clock_ahead == pytest.approx(hours * 3600, abs=30)
    Heartbeat(quiet_database, QueueState()).beat()
    assert min(abs(row.clock_ahead) for row in rows(quiet_database)) < 1


def sent(seconds_ago):
    return now() - timedelta(seconds=seconds_ago)


def test_a_queue_is_heard_as_far_as_its_messages_were_sent_until_they_are_answered():
    queue_state, old, new = QueueState(), sent(300), sent(10)
    assert queue_state.heard_at is queue_state.unanswered_at is None
    queue_state.received({"a": new, "b": old})
    assert queue_state.heard_at == queue_state.unanswered_at == old, "while they are answered too"
    queue_state.received({})
    assert now() - queue_state.heard_at < timedelta(seconds=30)
    for message_id, sent_at, oldest in (("b", old, old), ("b", None, new), ("a", None, None)):
        queue_state.handled(message_id, sent_at)
        assert queue_state.unanswered_at == oldest
    queue_state.handled("c", QueueState())
    for number in range(2000):
        queue_state.handled(str(number), new)
    assert len(queue_state._unanswered) == 1000, "a flood is not remembered whole"


def beat(database, **queue_state):
    heartbeat = Heartbeat(database, SimpleNamespace(**queue_state))
    heartbeat.beat()
    return heartbeat


def test_a_dead_background_worker_tells_of_no_message_and_the_best_hearing_counts(quiet_database):
    assert read(quiet_database, oldest_unanswered) is None
    best = sent(40)
    for heard_at in (best, sent(400)):
        beat(quiet_database, heard_at=heard_at, unanswered_at=None)
    assert read(quiet_database, oldest_unanswered) == best
    beat(quiet_database, heard_at=None, unanswered_at=sent(200))
    dead = beat(quiet_database, heard_at=None, unanswered_at=sent(500))
    assert sent(501) < read(quiet_database, oldest_unanswered) < sent(499)
    age(quiet_database, dead._id, 120)
    assert sent(201) < read(quiet_database, oldest_unanswered) < sent(199)
