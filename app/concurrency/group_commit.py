"""Group commit: requests that store something at the same time share one commit.

The first request that joins an open batch starts the batch's commit, which begins when the commit
before it has ended. Requests that join meanwhile wait for the same commit. So under load, a batch
has the requests that arrived during the last fsync. A single request does not wait for others. The
commit runs in a thread or greenlet of its own, so each request can stop waiting for it.

Observations for a histogram are buffered and added together as well, but not durably.
"""

import atexit
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from prometheus_client import Histogram

from app.concurrency.gevent import later, leaf_lock, spawn
from app.errors import StoreUnavailableError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_ADDED_SECONDS = 0.1  # from the first buffered observation until all are added
_TOO_SLOW = "The audit log can't be written right now; try again."


class _Batch:
    def __init__(self) -> None:
        self.deadline = 0.0  # the first request's
        # Set when the first request no longer waits, or when the batch is done
        self.first_left = threading.Event()
        self.items: list[Any] = []
        # When the batch is done: the outcome of each item
        self.outcomes: list[Any] = []
        self.done = threading.Event()


class GroupCommit(Generic[Item, Outcome]):
    """Commits the items of several requests together.

    `commit(items)` must store all items durably or none. It returns one outcome for all items.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Outcome]) -> None:
        self._commit = commit
        self._joining = leaf_lock()
        self._committing = threading.Lock()
        self._open = _Batch()

    def add(self, item: Item, patience: float) -> Outcome:
        """Store an item, and return the outcome when the item is durable.

        `patience`: how many seconds to wait. Raises StoreUnavailableError when the item could not
        be stored, or when the outcome is not known in time. In the second case the item may still
        be stored.
        """
        deadline = time.monotonic() + patience
        with self._joining:
            batch = self._open
            place = len(batch.items)
            batch.items.append(item)
            if place == 0:
                batch.deadline = deadline
        if place == 0:
            try:
                spawn(self._lead, batch, patience)
            except BaseException:
                # No thread could be started. Requests that have joined must not wait for this one,
                # and the next one must lead.
                self._close(batch)
                batch.first_left.set()
                raise
        if not self._wait(batch, deadline, is_first=place == 0):
            raise StoreUnavailableError(_TOO_SLOW)
        outcome: Outcome = batch.outcomes[place]
        if isinstance(outcome, StoreUnavailableError):  # each request raises its own instance
            raise StoreUnavailableError(outcome.detail) from outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _wait(self, batch: _Batch, deadline: float, *, is_first: bool) -> bool:
        """Wait for the batch. Return True when it is done, and False at the deadline.

        A timer costs as much as the rest of the wait, so only the first request sets one. When that
        timer expires, each of the other requests waits for the rest of its own time.
        """
        if is_first:
            try:
                return batch.done.wait(deadline - time.monotonic())
            finally:
                batch.first_left.set()
        if deadline >= batch.deadline:
            batch.first_left.wait()
        return batch.done.is_set() or batch.done.wait(max(0.0, deadline - time.monotonic()))

    def _lead(self, batch: _Batch, patience: float) -> None:
        """Commit the items of the batch. Set an outcome for each request even if this fails."""
        outcomes: list[Any] = []
        # Try without a timeout first, because a timeout costs a timer
        locked = self._committing.acquire(blocking=False) or self._committing.acquire(
            timeout=patience
        )
        try:
            if locked:
                time.sleep(0)  # lets other greenlets run first, whose requests may join
                self._close(batch)
                outcomes = self._store(batch.items)
        finally:
            self._close(batch)
            batch.outcomes = outcomes or [StoreUnavailableError(_TOO_SLOW)] * len(batch.items)
            if locked:
                self._committing.release()
            batch.done.set()
            batch.first_left.set()

    def _close(self, batch: _Batch) -> None:
        """Close the batch. Later requests join the next one."""
        with self._joining:
            if self._open is batch:
                self._open = _Batch()

    def _store(self, items: list[Item]) -> list[Any]:
        try:
            return [self._commit(items)] * len(items)
        except StoreUnavailableError as error:
            return [error] * len(items)
        except Exception as error:  # noqa: BLE001  the item's own request raises it again
            if len(items) == 1:
                return [error]
        # One of the items can't be stored. Store each by itself, so that the others don't fail.
        return [outcome for item in items for outcome in self._store([item])]


class BufferedHistogram:
    """A buffer of observations for one child of a histogram, for the most frequent requests.

    Adding an observation to a histogram that processes share takes 5 % of such a request's time. So
    observations are counted in memory, and added to the histogram ten times a second. A process
    that is killed loses the observations of its last tenth of a second.
    """

    def __init__(self, child: Histogram) -> None:
        # The child's public method adds one observation at a time, which takes 22,000 instructions
        # more (bench/results/2026-11.md).
        self._bounds: list[float] = child._upper_bounds  # noqa: SLF001
        self._buckets, self._sum = child._buckets, child._sum  # noqa: SLF001
        self._counts = [0] * len(self._bounds)
        self._total = 0.0
        self._is_due = False
        atexit.register(self.add)

    def observe(self, amount: float) -> None:
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._total += amount
        if not self._is_due:
            self._is_due = True
            later(_ADDED_SECONDS, self.add)

    def add(self) -> None:
        """Add the buffered observations to the histogram."""
        counts, self._counts = self._counts, [0] * len(self._bounds)
        total, self._total = self._total, 0.0
        self._is_due = False
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)
