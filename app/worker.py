"""The background worker of one machine: `flask --app wsgi worker`. No broker; one loop and a few threads.

It may run beside others, and be killed at any moment: what is due is in the database (app/due.py).
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app import log
from app.errors import AwsUnavailableError, StoreUnavailableError
from app.housekeeping import EVERY
from app.registrations import Registrations
from app.services import Services

_log = log.get(__name__)

THREADS = 16  # proofs at once; nearly all of their time is waiting for AWS
_TICK = 0.5  # seconds between two looks at what is due
_AFTER_FAILURE = 5.0  # seconds, while the database or the queue is away
LISTENERS = 4  # so that a message that takes long holds up the few beside it, and no others
_LISTEN = 2  # seconds that the queue holds a question open; an end waits for no more than that


class Worker:
    """Does what is due until `stop` is set."""

    def __init__(self, services: Services, stop: threading.Event) -> None:
        self._services = services
        self._stop = stop

    def run(self) -> None:
        """Returns when `stop` is set and what was begun is done."""
        listening = threading.Thread(
            target=listen, args=(self._services.registrations, self._stop), name="registrations"
        )
        listening.start()
        tidy_at = 0.0
        with ThreadPoolExecutor(THREADS, thread_name_prefix="proof") as pool:
            while not self._stop.is_set():
                began = time.monotonic()
                if began >= tidy_at:
                    tidy_at = began + EVERY
                    _guarded(self._stop, lambda: self._services.housekeeping.tidy() > 0)
                busy = _guarded(self._stop, lambda: self._round(pool))
                if not busy:
                    self._stop.wait(max(0.0, _TICK - (time.monotonic() - began)))
        listening.join()

    def _round(self, pool: ThreadPoolExecutor) -> bool:
        """Prove what is due, and say whether there may be more of it."""
        claims = self._services.due.claim(THREADS)
        list(pool.map(self._services.due.prove, claims))
        return len(claims) == THREADS


def listen(registrations: Registrations | None, stop: threading.Event) -> None:
    """Take what customers' stacks say, as it comes, until `stop` is set; None: there is no queue to listen to.

    On threads of its own: a stack waits for its answer, and behind proofs that take long it would give up.
    """
    if registrations is not None:
        with ThreadPoolExecutor(LISTENERS, thread_name_prefix="registrations") as pool:
            for _ in range(LISTENERS):
                pool.submit(_listen, registrations, stop)


def _listen(registrations: Registrations, stop: threading.Event) -> None:
    while not stop.is_set():
        _guarded(stop, lambda: registrations.receive(wait_seconds=_LISTEN) > 0)


def _guarded(stop: threading.Event, work: Callable[[], bool]) -> bool:
    """Nothing ends the worker: no database or AWS that is away, and no bug of ours either.

    One thread that ended would leave a process that looks alive and proves, or hears, nothing more.
    """
    try:
        return work()
    except (StoreUnavailableError, AwsUnavailableError):
        _log.warning("worker.waiting", seconds=_AFTER_FAILURE)
    except Exception as error:  # noqa: BLE001  what is due, and what the queue holds, comes again
        _log.error("worker.failed", exc_info=error)
    stop.wait(_AFTER_FAILURE)
    return False
