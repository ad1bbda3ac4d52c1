"""Group commit: requests that store something at the same moment share one commit.

The first request that joins an open batch starts its commit, which begins when the commit before it
has ended. Requests that join meanwhile wait for the same commit. Under load a batch is what arrived
during the last fsync. A lone request waits for no other. The commit runs beside the requests, so
each of them can stop waiting.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from app.concurrency.gevent import leaf_lock, spawn
from app.errors import StoreUnavailableError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_TOO_SLOW = "The audit log can't be written right now; try again."


class _Batch(Generic[Item, Outcome]):
    __slots__ = ("deadline", "done", "first_left", "items", "outcomes")

    def __init__(self) -> None:
        self.deadline = 0.0  # the first request's
        self.first_left = threading.Event()  # the first request no longer waits, or all are done
        self.items: list[Item] = []
        self.outcomes: list[Outcome | BaseException] = []  # one for each item, once done
        self.done = threading.Event()


class GroupCommit(Generic[Item, Outcome]):
    """Commits the items of several requests together.

    `commit(items)` stores all items durably or none, and returns one outcome for all of them.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Outcome]) -> None:
        self._commit = commit
        self._joining = leaf_lock()
        self._committing = threading.Lock()
        self._open: _Batch[Item, Outcome] = _Batch()

    def add(self, item: Item, patience: float) -> Outcome:
        """Store an item, and return its outcome once it is durable.

        `patience`: seconds to wait for the commits. Raises StoreUnavailableError when the item is
        not durable, or when that is not known in time. Such an item may be stored later, as when a
        process is killed between its commit and its answer.
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
                # There may be no free thread. Those who joined must not wait for this request.
                batch.first_left.set()
                raise
        if not self._wait(batch, deadline, is_first=place == 0):
            raise StoreUnavailableError(_TOO_SLOW)
        outcome = batch.outcomes[place]
        if isinstance(outcome, StoreUnavailableError):  # one instance for each request
            raise StoreUnavailableError(outcome.detail) from outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _wait(self, batch: _Batch[Item, Outcome], deadline: float, *, is_first: bool) -> bool:
        """Return True once the batch is done, or False at the deadline.

        A timer costs as much as the rest of the wait, so only the first request sets one. When it
        goes off, each of the others waits for the rest of its own time.
        """
        if is_first:
            try:
                return batch.done.wait(deadline - time.monotonic())
            finally:
                batch.first_left.set()
        if deadline >= batch.deadline:
            batch.first_left.wait()
        return batch.done.is_set() or batch.done.wait(max(0.0, deadline - time.monotonic()))

    def _lead(self, batch: _Batch[Item, Outcome], patience: float) -> None:
        """Commit for all requests in the batch. They get an outcome even if this fails."""
        outcomes: list[Outcome | BaseException] | None = None
        # A wait with a timeout costs a timer
        locked = self._committing.acquire(blocking=False) or self._committing.acquire(
            timeout=patience
        )
        try:
            if locked:
                time.sleep(0)  # lets requests that are about to join run first
                self._close(batch)
                outcomes = self._store(batch.items)
        finally:
            self._close(batch)
            batch.outcomes = outcomes or [StoreUnavailableError(_TOO_SLOW)] * len(batch.items)
            if locked:
                self._committing.release()
            batch.done.set()
            batch.first_left.set()

    def _close(self, batch: _Batch[Item, Outcome]) -> None:
        """Close the batch: requests that come later join the next one."""
        with self._joining:
            if self._open is batch:
                self._open = _Batch()

    def _store(self, items: list[Item]) -> list[Outcome | BaseException]:
        try:
            return [self._commit(items)] * len(items)
        except StoreUnavailableError as error:
            return [error] * len(items)
        except Exception as error:  # noqa: BLE001  raised again by the request that it belongs to
            if len(items) == 1:
                return [error]
        # An item that can't be stored must not fail the others.
        return [outcome for item in items for outcome in self._store([item])]
