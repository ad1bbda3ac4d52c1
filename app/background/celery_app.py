"""The background worker beyond one machine: Celery carries what the database says is due.

Over the broker that BROKER_URL names: `celery --app celery_app worker --beat`, as often as one likes. A broker that loses
its messages and a worker that is killed lose nothing: what is due is in the database (app/connections/proof_queue.py).
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from celery import Celery, bootsteps
from celery.apps.worker import Worker
from celery.beat import Scheduler
from celery.platforms import EX_FAILURE
from celery.worker import components, state

from app.background import housekeeping
from app.background.parts import Part, companions, stop_all
from app.background.single_machine import THREADS
from app.config import Config
from app.connections.proof_queue import Claim
from app.services import Services

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
    "beat_scheduler": "celery.beat:Scheduler",  # in memory; Celery's own wants a file, in a folder that may be read-only
    "beat_schedule": {
        "due": {"task": "deputy.due", "schedule": 1.0, "options": {"expires": 5}},
        "tidy": {
            "task": "deputy.tidy",
            "schedule": float(housekeeping.EVERY),
            "options": {"expires": housekeeping.EVERY},
        },
    },
}


def _fail() -> None:
    """End this worker with an error once its tasks are done, so that a supervisor starts another."""
    state.should_stop = EX_FAILURE


class _Beat(components.Beat):  # type: ignore[misc]  # celery is untyped
    """The tick of `--beat`, on a thread of the worker.

    Celery's own is a process beside the worker, which outlives its parent's kill -9, and whose end nobody notices.
    """

    def create(self, worker: Any) -> Part:
        worker.beat = beat = Part("beat", lambda part: _tick(worker.app, part), _fail)
        return beat


def _tick(celery: Celery, part: Part) -> None:
    scheduler = Scheduler(celery, max_interval=1)
    while not part.told_to_end(after=scheduler.tick()):
        pass


class _Worker(Worker):  # type: ignore[misc]  # celery is untyped
    class Blueprint(Worker.Blueprint):  # type: ignore[misc]
        default_steps = Worker.Blueprint.default_steps - {"celery.worker.components:Beat"} | {_Beat}


class _SqsWorker(_Worker):
    """Asks SQS through boto3 and waits for the answer.

    Celery's own way is an event loop with curl. There one refusal of SQS's can end the asking, and the process goes on
    without it. Here it ends the process, and whoever supervises that starts another.
    """

    def should_use_eventloop(self) -> bool:
        return False


def create_celery(config: Config, services: Callable[[], Services]) -> Celery:
    """Celery's application: a tick that claims what is due, one task for each claim, and what keeps house.

    What every worker has goes on beside. `services` gives the same ones each time. It is called in the process that works.
    """
    celery = _over_broker(config)
    celery.conf.update(_SETTINGS)
    celery.steps["worker"].add(_beside(services))

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
        housekeeping.tidy(services().db)

    return celery


def _beside(services: Callable[[], Services]) -> type[bootsteps.StartStopStep]:
    class Beside(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
        """No tasks: the queue of registrations is their store, and a worker must be seen to live without a broker."""

        requires = (components.Pool,)  # a pool that forks must find no thread and no connection of ours

        def start(self, _worker: Any) -> None:
            self._parts = companions(services(), "celery", _fail)
            for part in self._parts:
                part.start()

        def stop(self, _worker: Any) -> None:
            stop_all(self._parts)

    return Beside


def _over_broker(config: Config) -> Celery:
    """Celery with its broker and what is peculiar to that kind."""
    url = config.broker_url or ""
    sqs = url.startswith("sqs://")
    celery = Celery("deputy", broker="sqs://" if sqs else url, set_as_current=False)
    celery.Worker = celery.subclass_with_self(_SqsWorker if sqs else _Worker)
    if not sqs:
        celery.conf.broker_transport_options = {"visibility_timeout": 300}  # Redis's; RabbitMQ has none
        return celery
    celery.conf.broker_transport_options = {
        "region": config.region,  # the SDK itself reads AWS_DEFAULT_REGION alone
        # One that is there: a worker may neither list nor make queues. Its visibility timeout is its own.
        "predefined_queues": {_QUEUE: {"url": f"https://{url.removeprefix('sqs://')}"}},
        "wait_time_seconds": 2,  # that the queue holds a question open; an end waits for no more than that
        "polling_interval": 0.1,  # seconds until it looks whether a hand is free; Celery's own is one
    }
    return celery
