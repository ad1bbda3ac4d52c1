"""gevent: calls that must not block its hub, and work that outlives the request that started it.

A web process has one thread for all of its requests. Elsewhere (commands, tests, background workers) the same calls use
plain threads.
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
    """Run a call that blocks its thread (a file lock, an fsync) while the process serves other requests."""
    if not _is_gevents():
        return work(*args, **kwargs)
    outcome: Result = gevent.get_hub().threadpool.apply(work, args, kwargs)
    return outcome


def spawn(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> "Future[Result]":
    """Start work that goes on when the request that started it has stopped waiting."""
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
        threading.Thread(target=run, name=repr(work), daemon=True).start()
    return future


def _is_gevents() -> bool:
    """Whether this process was patched, as gunicorn's gevent workers are."""
    patched: bool = gevent.monkey.is_module_patched("threading")
    return patched
