"""The background worker beyond one machine: Celery carries what the database says is due.

Over the broker that BROKER_URL names: `celery --app worker worker --beat`, as often as one likes. A broker that loses
its messages and a worker that is killed lose nothing: what is due is in the database (app/due.py).
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from celery import Celery

from app.config import Config
from app.due import Claim
from app.housekeeping import EVERY
from app.services import Services

_SETTINGS = {
    "task_ignore_result": True,
    "task_acks_late": True,  # a worker that is killed gives its task back
    "worker_prefetch_multiplier": 1,
    "task_default_queue": "deputy",
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {"visibility_timeout": 300},
    "worker_hijack_root_logger": False,
    "timezone": "UTC",
    "beat_schedule": {
        "due": {"task": "deputy.due", "schedule": 1.0, "options": {"expires": 5}},
        "registrations": {"task": "deputy.registrations", "schedule": 2.0, "options": {"expires": 5}},
        "tidy": {"task": "deputy.tidy", "schedule": float(EVERY), "options": {"expires": EVERY}},
    },
}


def create_celery(config: Config, services: Callable[[], Services]) -> Celery:
    """Celery's application: a tick that claims what is due, one task for each claim, and ticks for the rest.

    `services` is called in the process that works, as neither connections nor locks survive its fork.
    """
    celery = Celery("deputy", broker=config.broker_url, set_as_current=False)
    celery.conf.update(_SETTINGS)

    @celery.task(name="deputy.due", shared=False)  # type: ignore[untyped-decorator]
    def due() -> None:
        for claim in services().due.claim(config.proofs_a_second):
            prove.delay(claim.tenant_id.hex, claim.connection_id.hex, claim.lease.isoformat())

    @celery.task(name="deputy.prove", shared=False)  # type: ignore[untyped-decorator]
    def prove(tenant_id: str, connection_id: str, lease: str) -> Any:
        claim = Claim(UUID(tenant_id), UUID(connection_id), datetime.fromisoformat(lease))
        return services().due.prove(claim)

    @celery.task(name="deputy.registrations", shared=False)  # type: ignore[untyped-decorator]
    def registrations() -> None:
        """Everything that customers' stacks have said by now. The queue is their store: nothing of it rides on ours."""
        queue = services().registrations
        while queue is not None and queue.receive(wait_seconds=1):
            pass

    @celery.task(name="deputy.tidy", shared=False)  # type: ignore[untyped-decorator]
    def tidy() -> None:
        services().housekeeping.tidy()

    return celery
