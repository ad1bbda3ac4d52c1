"""Group commit: items that come while a commit runs share the next one, and one item's error
fails no other.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from app.concurrency import group_commit
from app.concurrency.group_commit import GroupCommit, _Batch
from app.errors import StoreUnavailableError
from tests.support.waiting import until


class Stopped(BaseException):
    """As gevent stops a greenlet: no Exception, and nobody may catch it."""


class Disk:
    """Stores what it is given, one batch after the other, each as slowly as the test wants."""

    def __init__(self):
        self.batches = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.trouble = lambda _: None

    @property
    def items(self):
        return [item for batch in self.batches for item in batch]

    def commit(self, items):
        """Which commit it was, counted from 1."""
        self.batches.append(list(items))
        number = len(self.batches)
        assert self.go_on.wait(60)
        if (error := self.trouble(self.batches[-1])) is not None:
            raise error
        if "bad" in items:
            raise ValueError("bad can't be stored")
        return number


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def group(disk):
    return GroupCommit(disk.commit)


@pytest.fixture
def add_in_thread(group, disk):
    """`crowd(item)`: somebody adds it, in a thread of their own; the item has joined when this
    returns.
    """
    pool = ThreadPoolExecutor(32)

    def add(item, patience=10.0):
        running = pool.submit(group.add, item, patience)
        until(lambda: running.done() or item in group._open.items or item in disk.items)
        return running

    yield add
    pool.shutdown()


@pytest.fixture
def busy(disk, add_in_thread):
    """Somebody's commit is under way until the test says `disk.go_on.set()`."""
    disk.go_on.clear()
    first = add_in_thread("first")
    until(lambda: disk.batches)
    yield first
    disk.go_on.set()


def unavailable(running):
    with pytest.raises(StoreUnavailableError) as caught:
        running.result(timeout=60)
    return caught.value


def test_a_lone_item_waits_for_no_other(group, disk):
    began = time.monotonic()
    assert [group.add(item, patience=60.0) for item in "abc"] == [1, 2, 3]
    with pytest.raises(ValueError, match="bad"):
        group.add("bad", 60.0)
    assert group.add("good", 60.0) == 5
    assert time.monotonic() - began < 60
    assert disk.batches == [["a"], ["b"], ["c"], ["bad"], ["good"]], "and none is tried twice"


def test_all_who_come_during_a_commit_share_the_next_one(disk, add_in_thread, busy):
    others = [add_in_thread(f"other {number}") for number in range(20)]
    assert not any(running.done() for running in (busy, *others))
    disk.go_on.set()
    assert busy.result(60) == 1
    assert [running.result(60) for running in others] == [2] * 20
    assert disk.batches == [["first"], [f"other {number}" for number in range(20)]]


def test_each_caller_is_told_of_the_commit_that_its_own_item_was_in(group, disk):
    items = [str(number) for number in range(320)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda item: group.add(item, 10.0), items))
    assert sorted(disk.items) == sorted(items), "each is stored once"
    for item, number in zip(items, numbers, strict=True):
        assert item in disk.batches[number - 1]


def test_a_store_that_is_away_fails_each_of_the_batch_and_not_the_next(disk, add_in_thread, busy):
    others = [add_in_thread(f"other {number}") for number in range(4)]
    away = StoreUnavailableError("the disk is away")
    disk.trouble = lambda items: away if items[0].startswith("other") else None
    disk.go_on.set()
    errors = [unavailable(running) for running in others]
    assert {error.detail for error in errors} == {"the disk is away"}
    assert len({id(error) for error in errors}) == 4, (
        "one for all would collect the tracebacks of all"
    )
    assert busy.result(60) == 1
    assert add_in_thread("next").result(60) == 3


def test_an_item_that_can_not_be_stored_fails_alone(disk, add_in_thread, busy):
    items = ("a", "b", "bad", "c")
    others = [add_in_thread(item) for item in items]
    disk.go_on.set()
    with pytest.raises(ValueError, match="bad"):
        others[2].result(60)
    assert [others[place].result(60) for place in (0, 1, 3)] == [3, 4, 6]
    assert disk.batches == [["first"], [*items], ["a"], ["b"], ["bad"], ["c"]]
    assert busy.result(60) == 1


def test_a_follower_waits_as_long_as_it_has_patience(disk, add_in_thread, busy):
    leader = add_in_thread("leader", patience=60.0)
    began = time.monotonic()
    unavailable(add_in_thread("follower", patience=0.05))
    assert 0.04 < time.monotonic() - began < 30
    disk.go_on.set()
    assert leader.result(60) == 2
    assert disk.batches[1] == ["leader", "follower"], "it may be stored all the same"


def test_a_leader_that_stops_waiting_wakes_its_followers_who_wait_on(group):
    batch, now = _Batch(), time.monotonic()
    batch.deadline = now
    with ThreadPoolExecutor(1) as pool:
        follower = pool.submit(group._wait, batch, now + 60, is_first=False)
        assert group._wait(batch, now, is_first=True) is False
        was_woken = batch.first_left.is_set()
        batch.first_left.set()  # or a failure of this test would hang
        assert group._wait(batch, now, is_first=False) is False, "its own time is over too"
        batch.done.set()
        assert follower.result(60) is True
    assert was_woken


def test_a_leader_whose_turn_does_not_come_fails_its_followers_too(disk, add_in_thread, busy):
    leader = add_in_thread("leader", patience=0.3)
    followers = [add_in_thread(f"follower {number}") for number in range(3)]
    for running in (leader, *followers):
        unavailable(running)
    assert not busy.done()
    later = add_in_thread("later")
    disk.go_on.set()
    assert (busy.result(60), later.result(60)) == (1, 2)
    assert disk.batches == [["first"], ["later"]], (
        "what was said to have failed is not stored later on"
    )


def test_a_commit_that_is_stopped_holds_up_nobody(disk, add_in_thread, busy):
    leader, follower = add_in_thread("leader"), add_in_thread("follower")
    disk.trouble = lambda items: Stopped() if "leader" in items else None
    disk.go_on.set()
    with pytest.raises((Stopped, StoreUnavailableError)):
        leader.result(60)
    unavailable(follower)
    assert add_in_thread("next").result(60) == 3
    assert disk.batches == [["first"], ["leader", "follower"], ["next"]]


def test_a_thread_that_can_not_be_started_fails_one_batch_alone(group, disk, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "spawn", Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            group.add("lost", 60)
    group.add("next", 60)
    assert disk.batches == [["next"]]


def test_a_leader_that_is_stopped_while_it_waits_wakes_its_followers(group, monkeypatch):
    """As gevent kills a greenlet: at the place where it waits. The commit goes on beside it."""

    def stop(*_):
        raise Stopped

    batch = _Batch()
    monkeypatch.setattr(batch.done, "wait", stop)
    with pytest.raises(Stopped):
        group._wait(batch, time.monotonic() + 60, is_first=True)
    assert batch.first_left.is_set()
