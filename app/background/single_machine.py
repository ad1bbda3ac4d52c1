"""The background worker without Celery and message broker: `flask --app wsgi worker`.

Any number may run, on any number of machines, and each may be killed at any moment: the database
holds what is due (app/proofs/proof_queue.py).
"""

import threading

from app.background.housekeeping import EVERY, tidy
from app.background.parts import Part, companions, guarded, prove_what_is_due, stop_all
from app.services import Services


class SingleMachineWorker:
    """Proves the connections that are due until `stop` is set."""

    def __init__(self, services: Services, stop: threading.Event) -> None:
        self._services = services
        self._stop = stop
        self._whole = True

    def run(self) -> bool:
        """Run until `stop` is set and the work is done.

        Returns False if it stopped because one of its parts had ended.
        """
        queue = self._services.proof_queue
        parts = companions(self._services, "flask", self._fail)
        parts.append(Part("housekeeping", self._tidy, self._fail))
        for part in parts:
            part.start()
        prove_what_is_due(queue, queue.claim, self._stop)
        stop_all(parts)
        return self._whole

    def _fail(self) -> None:
        self._whole = False
        self._stop.set()

    def _tidy(self, part: Part) -> None:
        db, days = self._services.db, self._services.config.database.audit_retention_days
        while True:
            guarded(part.end, lambda: tidy(db, days, part.end))
            if part.end.wait(EVERY):
                break
