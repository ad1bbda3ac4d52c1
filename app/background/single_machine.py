"""The background worker without Celery and message broker: `flask --app wsgi worker`.

Any number may run, on any number of machines, and each may be killed at any moment: the database
holds what is due (app/proofs/proof_queue.py).
"""

from threading import Event

from app.background.housekeeping import EVERY, tidy
from app.background.parts import Part, companions, prove_what_is_due, repeat, stop_all
from app.services import Services


def run_worker(services: Services, stop: Event) -> bool:
    """Prove the connections that are due until `stop` is set and the work is done.

    Returns False if it stopped because one of its parts had ended.
    """
    failed = Event()

    def fail() -> None:
        failed.set()
        stop.set()

    def keep_house(part: Part) -> None:
        days = services.config.database.audit_retention_days
        repeat(part, EVERY, lambda: tidy(services.db, days, part.end))

    parts = [*companions(services, "flask", fail), Part("housekeeping", keep_house, fail)]
    for part in parts:
        part.start()
    prove_what_is_due(services.proof_queue, services.proof_queue.claim, stop)
    stop_all(parts)
    return not failed.is_set()
