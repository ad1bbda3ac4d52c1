"""The background worker of one machine: `flask --app wsgi worker`. One loop and some threads; it needs no broker.

Several may run at once, and each may be killed at any moment: the database holds what is due
(app/connections/proof_queue.py).
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from app.background.housekeeping import EVERY, tidy
from app.background.parts import companions, guarded, stop_all
from app.services import Services

THREADS = 16  # proofs at once; they mostly wait for AWS
_TICK = 0.5  # seconds between two queries for what is due


class Worker:
    """Proves what is due until `stop` is set."""

    def __init__(self, services: Services, stop: threading.Event) -> None:
        self._services = services
        self._stop = stop
        self._whole = True

    def run(self) -> bool:
        """Returns when `stop` is set and its work is done. False: it stopped because one of its parts had ended."""
        parts = companions(self._services, "flask", self._fail)
        for part in parts:
            part.start()
        tidy_at = 0.0
        with ThreadPoolExecutor(THREADS, thread_name_prefix="proof") as pool:
            while not self._stop.is_set():
                began = time.monotonic()
                if began >= tidy_at:
                    tidy_at = began + EVERY
                    guarded(self._stop, lambda: tidy(self._services.db) > 0)
                busy = guarded(self._stop, lambda: self._round(pool))
                if not busy:
                    self._stop.wait(max(0.0, _TICK - (time.monotonic() - began)))
        stop_all(parts)
        return self._whole

    def _fail(self) -> None:
        self._whole = False
        self._stop.set()

    def _round(self, pool: ThreadPoolExecutor) -> bool:
        """Prove what is due, and say whether there may be more of it."""
        claims = self._services.proof_queue.claim(THREADS)
        list(pool.map(self._services.proof_queue.prove, claims))
        return len(claims) == THREADS
