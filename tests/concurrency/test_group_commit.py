"""Group commit: items that come while a commit runs share the next one, and one item's error
fails no other.
"""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from app.concurrency.group_commit import GroupCommit, _Batch
from app.errors import StoreUnavailableError
from tests.support.waiting import until


class Stopped(BaseException):
    """As gevent stops a greenlet: no Exception, and nobody may catch it."""


class Disk:
    """Stores what it is given, one batch after the other, each as slowly as the test wants."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.trouble: Callable[[list[str]], BaseException | None] = lambda _: None

    @property
    def items(self) -> list[str]:
        return [item for batch in self.batches for item in batch]

    def commit(self, items) -> int:
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
def disk() -> Disk:
    return Disk()


@pytest.fixture
def group(disk) -> GroupCommit[str, int]:
    return GroupCommit(disk.commit)


@pytest.fixture
def add_in_thread(group, disk):
    """`crowd(item)`: somebody adds it, in a thread of their own; the item has joined when this
    returns.
    """
    pool = ThreadPoolExecutor(32)

    def add(item: str, patience: float = 10.0) -> Future[int]:
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


def unavailable(running: Future[int]) -> StoreUnavailableError:
    with pytest.raises(StoreUnavailableError) as caught:
        running.result(timeout=60)
    return caught.value


def test_a_lone_item_waits_for_no_other(group, disk):
    began = time.monotonic()
    assert [group.add(item, patience=60.0) for item in "abcde"] == [1, 2, 3, 4, 5]
    assert time.monotonic() - began < 60
    assert disk.batches == [["a"], ["b"], ["c"], ["d"], ["e"]]


def test_all_who_come_during_a_commit_share_the_next_one(disk, add_in_thread, busy):
    others = [add_in_thread(f"other {number}") for number in range(20)]
    assert not any(running.done() for running in (busy, *others))
    disk.go_on.set()
    assert busy.result(60) == 1
    assert [running.result(60) for running in others] == [2] * 20
    assert disk.batches == [["first"], [f"other {number}" for number in range(20)]]


def test_each_caller_is_told_of_the_commit_that_its_own_item_was_in(group, disk):
    told = {}

    def work(worker: int) -> None:
        for number in range(40):
            item = f"{worker}.{number}"
            told[item] = group.add(item, 10.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(told) == 320
    assert sorted(disk.items) == sorted(told), "each is stored once"
    assert all(item in disk.batches[number - 1] for item, number in told.items())


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


def test_one_bad_item_that_is_alone_is_not_tried_twice(group, disk):
    with pytest.raises(ValueError, match="bad"):
        group.add("bad", 1.0)
    assert disk.batches == [["bad"]]
    assert group.add("good", 1.0) == 2


def test_a_store_that_goes_away_during_the_retries_fails_only_what_was_not_stored(
    disk, add_in_thread, busy
):
    others = [add_in_thread(item) for item in ("a", "bad", "b")]
    disk.trouble = lambda items: StoreUnavailableError("gone now") if items == ["b"] else None
    disk.go_on.set()
    assert (busy.result(60), others[0].result(60)) == (1, 3)
    with pytest.raises(ValueError, match="bad"):
        others[1].result(60)
    unavailable(others[2])


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


def test_a_leader_that_is_stopped_while_it_waits_for_its_turn_holds_up_nobody(
    group, disk, add_in_thread, busy
):
    """As gevent kills a greenlet, or a signal a thread: at the place where it waits."""

    def stop(*_):
        raise Stopped

    followers: list[Future[int]] = []

    def follow() -> None:
        until(lambda: group._open.items == ["leader"])
        followers.append(add_in_thread("follower", patience=120.0))

    thread = threading.Thread(target=follow)
    thread.start()
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(Stopped):
            group.add("leader", 5.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        thread.join()
    disk.go_on.set()
    assert busy.result(60) == 1
    until(followers[0].done, seconds=60)  # stored or failed, but not left to itself
    assert followers[0].exception() is None or unavailable(followers[0])
    assert add_in_thread("next").result(60) in {2, 3}
