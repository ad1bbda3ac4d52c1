"""gevent: calls that must not block its hub, and work that outlives the request that started it.

A web process has one thread for all of its requests. Commands, tests and background workers make
the same calls in plain threads.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, ParamSpec, TypeVar

import gevent
import gevent.monkey
from gevent.threadpool import ThreadPool

P = ParamSpec("P")
Result = TypeVar("Result")

_THREADS = 10


@cache
def _threads() -> ThreadPool:
    """Return a thread pool of our own.

    gevent resolves names in the hub's own pool, and a dead DNS server would hold all of its threads
    for many seconds.
    """
    return ThreadPool(_THREADS)


def off_hub(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Run a blocking call (a file lock, an fsync) in a thread, so that other requests go on."""
    if not _is_gevents():
        return work(*args, **kwargs)
    future: Future[Result] = Future()
    _threads().apply(_settle, (future, work, args, kwargs))
    return future.result()


def spawn(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> "Future[Result]":
    """Start work that goes on when the request that started it has stopped waiting."""
    future: Future[Result] = Future()
    settling: Any = (future, work, args, kwargs)
    if _is_gevents():
        gevent.spawn(_settle, *settling)
    else:
        threading.Thread(target=_settle, args=settling, daemon=True).start()
    return future


def later(seconds: float, work: Callable[[], None]) -> None:
    """Run some work after so many seconds, or at once without gevent."""
    if _is_gevents():
        gevent.spawn_later(seconds, work)
    else:
        work()


def leaf_lock() -> AbstractContextManager[Any]:
    """Return a lock for a few steps in memory.

    While it is held, nothing may wait, and no other lock may be acquired. No greenlet switches
    then, so the system's own lock is enough. Where gevent patched the standard library,
    `threading.Lock` is a semaphore of greenlets, which takes ten times as long.
    """
    lock: AbstractContextManager[Any] = gevent.monkey.get_original("_thread", "allocate_lock")()
    return lock


def _settle(future: "Future[Result]", work: Callable[..., Result], args: Any, kwargs: Any) -> None:
    """Run the work, and pass its result or its exception to the future.

    gevent prints the traceback of an exception that leaves a thread of its pool. If printing fails,
    because the log is on a full disk, nobody wakes the request, and it keeps its locks.
    """
    try:
        future.set_result(work(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001  the future raises it
        future.set_exception(error)


def _is_gevents() -> bool:
    """Return whether gevent patched this process, as it does in web processes."""
    return bool(gevent.monkey.is_module_patched("threading"))
