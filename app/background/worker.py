"""The background worker, `flask --app wsgi worker`, and its threads.

They prove connections, write heartbeats, receive stacks' messages, deliver webhooks, record
published permission sets, and do the housekeeping. Any number may run, on any number of machines,
and each may be killed at any moment: the database holds what is due (app/proofs/proof_queue.py,
app/webhooks/delivery.py).
"""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from threading import Event, Thread
from typing import TypeVar

from app import VERSION, metrics
from app.background.deployment_metrics import DeploymentMetrics
from app.background.housekeeping import EVERY, tidy
from app.errors import AwsUnavailableError, StoreUnavailableError
from app.health.heartbeats import BEAT_SECONDS, Heartbeat, QueueState
from app.log import logger
from app.onboarding.registrations import Registrations
from app.proofs.proof_queue import Claim, ProofQueue
from app.services import Services
from app.webhooks.claims import DeliveryClaim
from app.webhooks.delivery import THREADS as DELIVERY_THREADS, Deliveries
from app.webhooks.endpoint_secrets import seal_again
from app.webhooks.retries_and_disabling import Outcome

THREADS = 16  # concurrent urgent proofs, and as many routine ones; they mostly wait for AWS
_TICK = 0.5  # seconds between two queries for what is due
_AFTER_FAILURE = 5.0  # seconds between attempts while the database or the queue is unavailable
_METRICS_AGAIN = 60.0  # seconds between attempts to bind the address of the metrics
LISTENERS = 4  # threads; a slow message delays only the batch of its own thread
_TOGETHER = 0.02  # seconds in which threads become free for one claim
_LISTEN = 2  # seconds of long polling; stopping waits at most this long for it
_PUBLISHED_AGAIN = 15.0  # seconds between reads of the bucket for unrecorded versions
_ENDING = 20.0  # most seconds that stopping waits for a thread

Work = TypeVar("Work")
Done = TypeVar("Done")


class Part(Thread):
    """A thread that a background worker needs.

    `work` has to return when the event `end` is set. `failed` is called if the thread ends before.
    """

    def __init__(
        self, name: str, work: Callable[[Event], None], failed: Callable[[], None]
    ) -> None:
        self.end = Event()
        super().__init__(name=name, target=work, args=(self.end,), daemon=True)
        self._failed = failed

    def run(self) -> None:
        error = None
        try:
            super().run()
        except BaseException as raised:  # noqa: BLE001  any error ends the background worker
            error = raised
        if not self.end.is_set():
            logger.critical("worker.part_ended", part=self.name, exc_info=error)
            self._failed()


def parts_of(services: Services, failed: Callable[[], None]) -> list[Part]:
    """Return the parts of a background worker beside its urgent proofs.

    Whether they serve metrics and receive stacks' messages depends on the settings.
    """
    queue = services.proof_queue
    works: dict[str, Callable[[Event], None]] = {
        "heartbeat": partial(_beat, services),
        # Routine proofs have threads of their own: they wait for their half of the STS budget, and
        # must not delay urgent proofs.
        "routine": partial(_prove, queue, queue.claim_routine),
        "publication": partial(_record_published, services),
        "webhooks": partial(_deliver, services.deliveries),
        "housekeeping": partial(_keep_house, services),
    }
    if bind := services.config.service.metrics_bind:
        works["metrics"] = partial(_serve_metrics, services, bind)
    if services.registrations:
        for number in range(LISTENERS):
            works[f"registrations-{number}"] = partial(_listen, services.registrations)
    return [Part(name, work, failed) for name, work in works.items()]


def stop_all(parts: list[Part]) -> None:
    """End all parts at the same time. Wait until each is done, or for 20 seconds at most.

    The wait can last that long if the database does not answer.
    """
    for part in parts:
        part.end.set()
    deadline = time.monotonic() + _ENDING
    for part in parts:
        part.join(max(0.0, deadline - time.monotonic()))


def run_worker(services: Services, stop: Event) -> bool:
    """Prove the connections that are due until `stop` is set and the work is done.

    Returns False if it stopped because one of its parts had ended.
    """
    failed = Event()

    def fail() -> None:
        failed.set()
        stop.set()

    logger.info("process.started", kind="worker", version=VERSION)
    parts = parts_of(services, fail)
    for part in parts:
        part.start()
    _prove(services.proof_queue, services.proof_queue.claim, stop)
    stop_all(parts)
    return not failed.is_set()


def _prove(queue: ProofQueue, claim: Callable[..., list[Claim]], end: Event) -> None:
    """Prove the connections that `claim` returns, until `end` is set."""

    def prove(due: Claim) -> bool:
        return guarded(end, lambda: queue.prove(due))

    _keep_busy("proof", THREADS, lambda _, free, running: claim(free, running), prove, end)


def _deliver(deliveries: Deliveries, end: Event) -> None:
    """Attempt due deliveries of webhooks, until `end` is set.

    It has threads of its own, because endpoints may take long to answer. Attempts that end together
    are stored together.
    """

    def advance(outcomes: list[Outcome], free: int, _: object) -> list[DeliveryClaim]:
        return deliveries.advance(outcomes, free)

    _keep_busy("webhook", DELIVERY_THREADS, advance, deliveries.attempt, end)


def _keep_busy(
    name: str,
    threads: int,
    advance: Callable[[list[Done], int, list[Work]], list[Work]],
    work: Callable[[Work], Done],
    end: Event,
) -> None:
    """Give each thread more work as soon as it is free, until `end` is set.

    `advance` gets the results since its last call, the number of free threads, and the work that is
    under way. It returns the work for the free threads. `work` must raise no error. At last all
    work under way is done, and `advance` gets its results, with no thread free.
    """
    running: dict[Future[Done], Work] = {}
    ended: list[Done] = []

    def go_on() -> None:
        claims = advance(ended, threads - len(running), [*running.values()])
        ended.clear()
        running.update({pool.submit(work, claim): claim for claim in claims})

    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        while not end.is_set():
            guarded(end, go_on)
            if not running:
                end.wait(_TICK)
            wait(running, _TICK, FIRST_COMPLETED)
            end.wait(_TOGETHER)
            for future in wait(running, 0).done:
                ended.append(future.result())
                del running[future]
    ended += [future.result() for future in running]
    guarded(end, lambda: advance(ended, 0, []))


def _listen(registrations: Registrations, end: Event) -> None:
    """Receive the messages of customers' stacks.

    It has threads of its own, because stacks wait for answers and would time out behind proofs.
    """
    while not end.is_set():
        guarded(end, lambda: registrations.receive(wait_seconds=_LISTEN))


def _record_published(services: Services, end: Event) -> None:
    """Record each permission set of this configuration once the bucket serves its template."""
    versions, publication = services.onboarding.versions, services.publication
    while not guarded(end, lambda: versions.record_published(publication.serves)):
        if end.wait(_PUBLISHED_AGAIN):
            return
    end.wait()


def _serve_metrics(services: Services, bind: tuple[str, int], end: Event) -> None:
    collector = DeploymentMetrics(services)
    while not end.is_set():
        try:
            stop_serving = metrics.serve(bind, collector)
        except OSError as error:  # another process may have the address; proofs go on
            logger.error("metrics.not_served", address=f"{bind[0]}:{bind[1]}", error=str(error))
            end.wait(_METRICS_AGAIN)
        else:
            end.wait()
            stop_serving()


def _keep_house(services: Services, end: Event) -> None:
    days = services.config.database.audit_retention_days

    def keep() -> None:
        seal_again(services.db, services.webhook_secrets)
        tidy(services.db, days, end)

    repeat(end, EVERY, keep)


def _beat(services: Services, end: Event) -> None:
    registrations = services.registrations
    queue_state = registrations.queue_state if registrations else QueueState()
    heartbeat = Heartbeat(services.db, queue_state)
    repeat(end, BEAT_SECONDS, heartbeat.beat)
    guarded(end, heartbeat.end)


def repeat(end: Event, seconds: float, work: Callable[[], object]) -> None:
    """Do the work at once and then every `seconds`, until `end` is set."""
    while True:
        guarded(end, work)
        if end.wait(seconds):
            return


def guarded(stop: Event, work: Callable[[], object]) -> bool:
    """Do the work and survive its errors: an unreachable database or AWS, and bugs of ours.

    A thread that ended would leave a process that looks alive and does nothing. Returns whether the
    result of `work` is true. After an error it pauses and returns False.
    """
    try:
        return bool(work())
    except StoreUnavailableError as error:
        cause = error.words_of_driver or str(error)
        logger.warning("worker.waiting", seconds=_AFTER_FAILURE, cause=cause)
    except AwsUnavailableError as error:
        logger.warning("worker.waiting", seconds=_AFTER_FAILURE, cause=str(error))
    except Exception as error:  # noqa: BLE001  due rows and queued messages are retried
        logger.error("worker.failed", exc_info=error)
    stop.wait(_AFTER_FAILURE)
    return False
