"""Helpers for gevent: calls that would block its hub, and work that outlives its request.

A web process runs all of its requests in one thread. In commands, tests and background workers,
which use plain threads, the same functions work without gevent.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, TypeVar

import gevent
import gevent.monkey
from gevent.threadpool import ThreadPool

Result = TypeVar("Result")


class Threads:
    """A pool of threads for blocking calls, apart from the pool of gevent's hub.

    gevent resolves host names in the hub's pool. A DNS server that does not answer occupies all
    threads of that pool for many seconds.
    """

    def __init__(self, most: int) -> None:
        self._most = most

    @cached_property
    def _pool(self) -> ThreadPool:  # made in the process that uses it
        return ThreadPool(self._most)

    def run(self, work: Callable[..., Result], *args: Any) -> Result:
        """Run a blocking call in a thread, so that other requests continue."""
        if not _is_gevents():
            return work(*args)
        future: Future[Result] = Future()
        self._pool.apply(_settle, (future, work, args))
        return future.result()


def spawn(work: Callable[..., Result], *args: Any) -> "Future[Result]":
    """Start work that continues even if the request that started it stops waiting."""
    future: Future[Result] = Future()
    settling: Any = (future, work, args)
    if _is_gevents():
        gevent.spawn(_settle, *settling)
    else:
        threading.Thread(target=_settle, args=settling, daemon=True).start()
    return future


def later(seconds: float, work: Callable[[], None]) -> None:
    """Run `work` after this number of seconds; without gevent, run it at once."""
    if _is_gevents():
        gevent.spawn_later(seconds, work)
    else:
        work()


def leaf_lock() -> AbstractContextManager[Any]:
    """Return a fast lock for a few steps in memory.

    Its holder must neither wait for anything nor acquire another lock. No other greenlet can then
    run while the lock is held, so a lock of the operating system is safe. `threading.Lock` would be
    ten times as slow, because gevent replaces it by a semaphore for greenlets.
    """
    lock: AbstractContextManager[Any] = gevent.monkey.get_original("_thread", "allocate_lock")()
    return lock


def _settle(future: "Future[Result]", work: Callable[..., Result], args: Any) -> None:
    """Run `work`, and pass its result or its exception to the future.

    No exception may leave a thread of gevent's pool, because gevent would print its traceback. If
    printing fails (for example on a full disk), gevent never wakes the request that waits, and the
    request keeps its locks.
    """
    try:
        future.set_result(work(*args))
    except BaseException as error:  # noqa: BLE001  the future raises it
        future.set_exception(error)


def _is_gevents() -> bool:
    """Return whether gevent has patched this process, as it does in web processes."""
    return bool(gevent.monkey.is_module_patched("threading"))
