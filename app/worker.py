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
from app.services import Services

_log = log.get(__name__)

_THREADS = 16  # proofs at once; nearly all of their time is waiting for AWS
_TICK = 0.5  # seconds between two looks at what is due
_AFTER_FAILURE = 5.0  # seconds, while the database or the queue is away
_LISTEN = 2  # seconds that the queue holds a question open; an end waits for no more than that


class Worker:
    """Does what is due until `stop` is set."""

    def __init__(self, services: Services, stop: threading.Event) -> None:
        self._services = services
        self._stop = stop

    def run(self) -> None:
        """Returns when `stop` is set and what was begun is done."""
        listening = threading.Thread(target=self._listen, name="registrations")
        listening.start()
        tidy_at = 0.0
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="proof") as pool:
            while not self._stop.is_set():
                began = time.monotonic()
                if began >= tidy_at:
                    tidy_at = began + EVERY
                    self._guarded(lambda: self._services.housekeeping.tidy() > 0)
                busy = self._guarded(lambda: self._round(pool))
                if not busy:
                    self._stop.wait(max(0.0, _TICK - (time.monotonic() - began)))
        listening.join()

    def _listen(self) -> None:
        """Take what customers' stacks say, as it comes: a stack waits for its answer."""
        registrations = self._services.registrations
        while registrations is not None and not self._stop.is_set():
            self._guarded(lambda: registrations.receive(wait_seconds=_LISTEN) > 0)

    def _round(self, pool: ThreadPoolExecutor) -> bool:
        """Prove what is due, and say whether there may be more of it."""
        claims = self._services.due.claim(_THREADS)
        list(pool.map(self._services.due.prove, claims))
        return len(claims) == _THREADS

    def _guarded(self, work: Callable[[], bool]) -> bool:
        """Nothing ends the worker: no database or AWS that is away, and no bug of ours either.

        One thread that ended would leave a process that looks alive and proves, or hears, nothing more.
        """
        try:
            return work()
        except (StoreUnavailableError, AwsUnavailableError):
            _log.warning("worker.waiting", seconds=_AFTER_FAILURE)
        except Exception as error:  # noqa: BLE001  what is due, and what the queue holds, comes again
            _log.error("worker.failed", exc_info=error)
        self._stop.wait(_AFTER_FAILURE)
        return False
