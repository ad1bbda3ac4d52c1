"""The background worker of one machine: `flask --app wsgi worker`. One loop and some threads; it needs no broker.

Several may run at once, and each may be killed at any moment: the database holds what is due
(app/connections/proof_queue.py).
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.background.housekeeping import EVERY, tidy
from app.background.parts import Part, companions, guarded, stop_all
from app.connections.proof_queue import Claim
from app.services import Services

THREADS = 16  # urgent proofs at once, and as many routine ones; they mostly wait for AWS
_TICK = 0.5  # seconds between two queries for what is due


class SingleMachineWorker:
    """Proves what is due until `stop` is set."""

    def __init__(self, services: Services, stop: threading.Event) -> None:
        self._services = services
        self._stop = stop
        self._whole = True

    def run(self) -> bool:
        """Returns when `stop` is set and its work is done. False: it stopped because one of its parts had ended."""
        queue = self._services.proof_queue
        parts = companions(self._services, "flask", self._fail)
        parts.append(Part("routine", lambda part: self._prove_routinely(part, queue.claim_routine), self._fail))
        parts.append(Part("housekeeping", self._tidy, self._fail))
        for part in parts:
            part.start()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="proof") as pool:
            while not self._stop.is_set():
                began = time.monotonic()
                busy = guarded(self._stop, lambda: self._round(pool, queue.claim))
                if not busy:
                    self._stop.wait(max(0.0, _TICK - (time.monotonic() - began)))
        stop_all(parts)
        return self._whole

    def _fail(self) -> None:
        self._whole = False
        self._stop.set()

    def _tidy(self, part: Part) -> None:
        while True:
            guarded(part.end, lambda: tidy(self._services.db, self._services.config.audit_retention_days) > 0)
            if part.end.wait(EVERY):
                break

    def _prove_routinely(self, part: Part, claim: Callable[[int], list[Claim]]) -> None:
        """In a loop of its own: a routine proof waits for its half of the budget, and must delay nothing urgent."""
        with ThreadPoolExecutor(THREADS, thread_name_prefix="routine") as pool:
            while not part.end.is_set():
                if not guarded(part.end, lambda: self._round(pool, claim)):
                    part.end.wait(_TICK)

    def _round(self, pool: ThreadPoolExecutor, claim: Callable[[int], list[Claim]]) -> bool:
        """Prove what is due, and say whether there may be more of it."""
        claims = claim(THREADS)
        list(pool.map(self._services.proof_queue.prove, claims))
        return len(claims) == THREADS
