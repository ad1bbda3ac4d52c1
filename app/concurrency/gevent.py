"""gevent's hub: what must not block it, and what goes on beside a request that can't wait any longer.

A gevent worker has one thread for all of its requests. Outside of one (commands, tests, other kinds of workers) the
same calls work with plain threads.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

import gevent
import gevent.monkey

P = ParamSpec("P")
Result = TypeVar("Result")


def off_hub(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Run what blocks its thread (a file lock, an fsync) so that a worker's other requests go on meanwhile."""
    if not _is_gevents():
        return work(*args, **kwargs)
    outcome: Result = gevent.get_hub().threadpool.apply(work, args, kwargs)
    return outcome


def beside(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> "Future[Result]":
    """Start work that goes on even if nobody waits for it any longer."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            outcome = work(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  it is raised where the outcome is asked for
            future.set_exception(error)
        else:
            future.set_result(outcome)

    if _is_gevents():
        gevent.spawn(run)
    else:
        threading.Thread(target=run, name=f"beside {work!r}", daemon=True).start()
    return future


def _is_gevents() -> bool:
    """Whether this process was patched, as gunicorn's gevent workers are."""
    patched: bool = gevent.monkey.is_module_patched("threading")
    return patched
