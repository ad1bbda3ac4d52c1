"""The background worker with Celery: the database holds what is due, and Celery distributes it.

Celery carries urgent proofs, and no routine ones. Routine proofs wait for their half of the STS
budget. In Celery's queue they would occupy every thread, so each background worker claims them from
the database (app/background/worker.py).

Run `celery --app celery_app worker --beat` on as many machines as you like, with DEPUTY_CELERY_URL.
Nothing is lost when a message broker loses its messages or a background worker is killed: the
database holds what is due (app/proofs/proof_queue.py).
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any
from uuid import UUID

from celery import Celery, bootsteps, signals
from celery.apps.worker import Worker
from celery.beat import Scheduler
from celery.platforms import EX_FAILURE
from celery.worker import components, state
from kombu.exceptions import OperationalError

from app.background import housekeeping
from app.background.worker import THREADS, Part, companions, stop_all
from app.clock import timestamp
from app.config import Config
from app.health.checks import HealthFinding, failed, ok, skipped
from app.health.doctor_checks import work_queue
from app.proofs.proof_queue import Claim
from app.proofs.schedule import proofs_a_second
from app.services import Services
from app.webhooks.endpoint_secrets import seal_again

_QUEUE = "deputy"
_TIDY = housekeeping.EVERY
_SETTINGS = {
    "task_ignore_result": True,
    "task_acks_late": True,  # the task of a killed background worker is delivered again
    # A cancelled proof would be repeated only after its lease expires
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_prefetch_multiplier": 1,
    # A proof mostly waits for AWS: threads are enough, and one process has one STS budget.
    "worker_pool": "threads",
    "worker_concurrency": THREADS,
    "task_default_queue": _QUEUE,
    "broker_connection_retry_on_startup": True,
    # With remote control, any sender of messages could stop background workers and inspect them.
    "worker_enable_remote_control": False,
    "timezone": "UTC",
    "beat_scheduler": "celery.beat:Scheduler",  # in memory; Celery's default writes a file
    "beat_schedule": {
        "due": {"task": "deputy.due", "schedule": 1.0, "options": {"expires": 30}},
        "tidy": {"task": "deputy.tidy", "schedule": float(_TIDY), "options": {"expires": _TIDY}},
    },
}


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _leave_the_log(**_: Any) -> None:
    """Do nothing: Celery's own set-up would replace LOG_LEVEL by its --loglevel."""


def _fail() -> None:
    """End this background worker with an error once its tasks are done.

    A supervisor then starts another.
    """
    state.should_stop = EX_FAILURE


def _tick(celery: Celery, end: Event) -> None:
    """Run the schedule of `--beat` on a thread of the background worker.

    Celery's own beat is a second process. It survives a kill -9 of the background worker, and the
    background worker does not notice when that process ends. After a clock was set back, Celery's
    schedule would wait until it is where it was, so a new one begins.
    """
    latest = timestamp()
    scheduler = Scheduler(celery, max_interval=1)
    while not end.wait(scheduler.tick()):
        current_time = timestamp()
        if current_time < latest - 1:
            scheduler = Scheduler(celery, max_interval=1)
        latest = current_time


class _Worker(Worker):  # type: ignore[misc]  # celery is untyped
    class Blueprint(Worker.Blueprint):  # type: ignore[misc]
        default_steps = Worker.Blueprint.default_steps - {"celery.worker.components:Beat"}


class _SqsWorker(_Worker):
    """Polls SQS through boto3 instead of Celery's event loop with curl.

    In Celery's event loop one refusal from SQS can end the polling, while the process lives on.
    Without the loop the refusal ends the process, and its supervisor starts another.
    """

    def should_use_eventloop(self) -> bool:
        return False


def create_celery(config: Config, services: Callable[[], Services]) -> Celery:
    """Create Celery's application with its three tasks.

    The tasks are a tick that claims urgent proofs, a proof for each claim, and housekeeping. Each
    background worker also runs the parts of app/background/worker.py. `services` is called in the
    process that does the work, and returns the same object each time.
    """
    celery = _over_broker(config)
    celery.conf.update(_SETTINGS)
    end = Event()
    celery.steps["worker"].add(_beside(services, end))

    @celery.task(name="deputy.due", shared=False)  # type: ignore[untyped-decorator]
    def due() -> None:
        for claim in services().proof_queue.claim(proofs_a_second(config.proofs)):
            prove.delay(*claim)  # Celery's JSON can encode UUIDs and datetimes

    @celery.task(name="deputy.prove", shared=False)  # type: ignore[untyped-decorator]
    def prove(tenant_id: UUID, connection_id: UUID, lease: datetime) -> Any:
        return services().proof_queue.prove(Claim(tenant_id, connection_id, lease))

    @celery.task(name="deputy.tidy", shared=False)  # type: ignore[untyped-decorator]
    def tidy() -> None:
        deputy, days = services(), config.database.audit_retention_days
        seal_again(deputy.db, deputy.webhook_secrets)
        housekeeping.tidy(deputy.db, days, end)

    return celery


def _beside(services: Callable[[], Services], end: Event) -> type[bootsteps.StartStopStep]:
    class Beside(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
        """Runs the parts as threads, not as tasks.

        A background worker must take registrations and send heartbeats while its message broker is
        unavailable.
        """

        # Starts after the pool: a pool that forks must not inherit our threads and connections
        requires = (components.Pool,)

        def __init__(self, worker: Any, *, beat: bool = False, **_: Any) -> None:
            self._beat = [Part("beat", partial(_tick, worker.app), _fail)] if beat else []

        def start(self, _worker: Any) -> None:
            self._parts = [*companions(services(), "celery", _fail), *self._beat]
            for part in self._parts:
                part.start()

        def stop(self, _worker: Any) -> None:
            end.set()
            stop_all(self._parts)

    return Beside


def message_broker(config: Config) -> HealthFinding:
    """Check for `doctor` whether Celery's message broker answers."""
    url = config.database.celery_url
    if url is None:
        return skipped(
            "No message broker is configured: background workers do the work without Celery."
        )
    if url.startswith("sqs://"):
        return work_queue(config, _queue_url(url))
    try:
        with _over_broker(config).connection_for_write(connect_timeout=3) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=3)
    except (OperationalError, OSError):
        return failed(
            "Celery's message broker does not answer, so nothing is proven.",
            "Look at DEPUTY_CELERY_URL, and at the Redis, Valkey or RabbitMQ that it names.",
        )
    return ok("Celery's message broker answers.")


def _queue_url(celery_url: str) -> str:
    return f"https://{celery_url.removeprefix('sqs://')}"


def _over_broker(config: Config) -> Celery:
    """Return a Celery application with the settings of its kind of message broker."""
    url = config.database.celery_url or ""
    sqs = url.startswith("sqs://")
    celery = Celery("deputy", broker="sqs://" if sqs else url, set_as_current=False)
    celery.Worker = celery.subclass_with_self(_SqsWorker if sqs else _Worker)
    if not sqs:
        # Seconds. Redis needs this timeout; RabbitMQ has none.
        celery.conf.broker_transport_options = {"visibility_timeout": 300}
        return celery
    celery.conf.broker_transport_options = {
        "region": config.aws.region,  # botocore reads only AWS_DEFAULT_REGION
        # The URL of an existing queue, which has its own visibility timeout. A background worker
        # may neither list nor create queues.
        "predefined_queues": {_QUEUE: {"url": _queue_url(url)}},
        # Seconds of long polling; stopping a background worker waits at most this long
        "wait_time_seconds": 2,
        # seconds between two checks for a free thread; Celery's default is one second
        "polling_interval": 0.1,
    }
    return celery
