"""The background worker beyond one machine: Celery carries what the database says is due.

Over the broker that BROKER_URL names: `celery --app worker worker --beat`, as often as one likes. A broker that loses
its messages and a worker that is killed lose nothing: what is due is in the database (app/due.py).
"""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from celery import Celery, bootsteps
from celery.apps.worker import Worker
from celery.worker.components import Beat

from app.config import Config
from app.due import Claim
from app.housekeeping import EVERY
from app.services import Services
from app.worker import THREADS, listen

_QUEUE = "deputy"
_SETTINGS = {
    "task_ignore_result": True,
    "task_acks_late": True,  # a worker that is killed gives its task back
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # a proof cut off would wait for its lease
    "worker_prefetch_multiplier": 1,
    # A proof is waiting for AWS. So threads, and one process, which keeps its one STS budget.
    "worker_pool": "threads",
    "worker_concurrency": THREADS,
    "task_default_queue": _QUEUE,
    "broker_connection_retry_on_startup": True,
    "worker_hijack_root_logger": False,
    # Whoever can send messages could otherwise stop workers and have them tell what they do.
    "worker_enable_remote_control": False,
    "timezone": "UTC",
    "beat_schedule": {
        "due": {"task": "deputy.due", "schedule": 1.0, "options": {"expires": 5}},
        "tidy": {"task": "deputy.tidy", "schedule": float(EVERY), "options": {"expires": EVERY}},
    },
}


class _SqsWorker(Worker):  # type: ignore[misc]  # celery is untyped
    """Asks SQS through boto3 and waits for the answer.

    Celery's own way is an event loop with curl. There one refusal of SQS's can end the asking, and the process goes on
    without it. Here it ends the process, and whoever supervises that starts another.
    """

    def should_use_eventloop(self) -> bool:
        return False


def create_celery(config: Config, services: Callable[[], Services]) -> Celery:
    """Celery's application: a tick that claims what is due, one task for each claim, and what keeps house.

    Stacks are listened to beside. `services` gives the same ones each time. It is called in the process that works.
    """
    celery = _over_broker(config)
    celery.conf.update(_SETTINGS)
    celery.steps["worker"].add(_listening(services))

    @celery.task(name="deputy.due", shared=False)  # type: ignore[untyped-decorator]
    def due() -> None:
        for claim in services().due.claim(config.proofs_a_second):
            prove.delay(claim.tenant_id.hex, claim.connection_id.hex, claim.lease.isoformat())

    @celery.task(name="deputy.prove", shared=False)  # type: ignore[untyped-decorator]
    def prove(tenant_id: str, connection_id: str, lease: str) -> Any:
        claim = Claim(UUID(tenant_id), UUID(connection_id), datetime.fromisoformat(lease))
        return services().due.prove(claim)

    @celery.task(name="deputy.tidy", shared=False)  # type: ignore[untyped-decorator]
    def tidy() -> None:
        services().housekeeping.tidy()

    return celery


def _listening(services: Callable[[], Services]) -> type[bootsteps.StartStopStep]:
    class Listening(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
        """Beside the tasks and none of them: the queue of registrations is their store, and nothing rides on Celery's."""

        requires = (Beat,)  # which forks: no thread of ours, and no connection, must be there by then

        def __init__(self, worker: Any, **options: Any) -> None:
            super().__init__(worker, **options)
            self._end = threading.Event()

        def start(self, _worker: Any) -> None:
            registrations = services().registrations
            self._thread = threading.Thread(
                target=listen, args=(registrations, self._end), name="registrations", daemon=True
            )
            self._thread.start()

        def stop(self, _worker: Any) -> None:
            self._end.set()
            self._thread.join()

    return Listening


def _over_broker(config: Config) -> Celery:
    """Celery with its broker and what is peculiar to that kind."""
    url = config.broker_url or ""
    sqs = url.startswith("sqs://")
    celery = Celery("deputy", broker="sqs://" if sqs else url, set_as_current=False)
    if not sqs:
        celery.conf.broker_transport_options = {"visibility_timeout": 300}  # Redis's; RabbitMQ has none
        return celery
    celery.Worker = celery.subclass_with_self(_SqsWorker)
    celery.conf.broker_transport_options = {
        "region": config.region,  # the SDK itself reads AWS_DEFAULT_REGION alone
        # One that is there: a worker may neither list nor make queues. Its visibility timeout is its own.
        "predefined_queues": {_QUEUE: {"url": f"https://{url.removeprefix('sqs://')}"}},
        "wait_time_seconds": 2,  # that the queue holds a question open; an end waits for no more than that
        "polling_interval": 0.1,  # seconds until it looks whether a hand is free; Celery's own is one
    }
    return celery
