"""The threads that both kinds of background workers run beside urgent proofs.

They make routine proofs, write heartbeats, receive stacks' messages, and record what is published.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from app import VERSION, metrics
from app.background.deployment_metrics import DeploymentMetrics
from app.errors import AwsUnavailableError, StoreUnavailableError
from app.health.heartbeats import BEAT_SECONDS, Heartbeat
from app.log import logger
from app.onboarding.registrations import Registrations
from app.proofs.proof_queue import Claim, ProofQueue
from app.services import Services

THREADS = 16  # concurrent urgent proofs, and as many routine ones; they mostly wait for AWS
_TICK = 0.5  # seconds between two queries for what is due
_AFTER_FAILURE = 5.0  # seconds between attempts while the database or the queue is unavailable
_METRICS_AGAIN = 60.0  # seconds between attempts to bind the address of the metrics
LISTENERS = 4  # threads; a slow message delays only the batch of its own thread
_LISTEN = 2  # seconds of long polling; stopping waits at most this long for it
_PUBLISHED_AGAIN = 15.0  # seconds between reads of the bucket for unrecorded versions
_ENDING = 20.0  # most seconds that stopping waits for a thread


class Part(threading.Thread):
    """A thread that a background worker needs.

    `failed` is called when the thread ends before `end` is set.
    """

    def __init__(
        self, name: str, work: Callable[["Part"], None], failed: Callable[[], None]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._failed = failed
        self.end = threading.Event()

    def run(self) -> None:
        error: BaseException | None = None
        try:
            self._work(self)
        except BaseException as raised:  # noqa: BLE001  any error ends the background worker
            error = raised
        if not self.end.is_set():
            logger.critical("worker.part_ended", part=self.name, exc_info=error)
            self._failed()

    def stop(self) -> None:
        """Set `end` and wait until the work is done, or for 20 seconds at most.

        The wait can last that long if a message broker or a database does not answer.
        """
        self.end.set()
        self.join(_ENDING)


def companions(services: Services, kind: str, failed: Callable[[], None]) -> list[Part]:
    """Return the parts that run beside urgent proofs.

    The parts make routine proofs, write the heartbeat and record what is published. Depending on
    the settings, they also serve metrics and receive stacks' messages.
    """
    logger.info("process.started", kind=kind, version=VERSION)
    parts = [
        Part("heartbeat", partial(_beat, services, kind), failed),
        Part("routine", partial(_prove_routinely, services), failed),
        Part("publication", partial(_record_published, services), failed),
    ]
    if bind := services.config.service.metrics_bind:
        parts.append(Part("metrics", partial(_serve_metrics, services, bind), failed))
    if services.registrations:
        listen = partial(_listen, services.registrations)
        parts += [Part(f"registrations-{number}", listen, failed) for number in range(LISTENERS)]
    return parts


def stop_all(parts: list[Part]) -> None:
    """Stop all parts at the same time, each as `Part.stop` does."""
    for part in parts:
        part.end.set()
    for part in parts:
        part.stop()


def prove_what_is_due(
    queue: ProofQueue, claim: Callable[[int], list[Claim]], end: threading.Event
) -> None:
    """Prove the connections that `claim` returns, in batches, until `end` is set."""

    def prove_batch() -> bool:
        """Prove one batch of due connections, and return whether there may be more."""
        claims = claim(THREADS)
        list(pool.map(queue.prove, claims))
        return len(claims) == THREADS

    with ThreadPoolExecutor(THREADS, thread_name_prefix="proof") as pool:
        while not end.is_set():
            began = time.monotonic()
            if not guarded(end, prove_batch):
                end.wait(max(0.0, _TICK - (time.monotonic() - began)))


def _prove_routinely(services: Services, part: Part) -> None:
    """Make routine proofs on threads of their own.

    Routine proofs wait for their half of the STS budget, and must not delay urgent proofs.
    """
    prove_what_is_due(services.proof_queue, services.proof_queue.claim_routine, part.end)


def _listen(registrations: Registrations, part: Part) -> None:
    """Receive the messages of customers' stacks.

    It has threads of its own, because stacks wait for answers and would time out behind proofs.
    """
    while not part.end.is_set():
        guarded(part.end, lambda: registrations.receive(wait_seconds=_LISTEN))


def _record_published(services: Services, part: Part) -> None:
    """Record each permission set of this configuration once the bucket serves its template."""
    versions, publication = services.onboarding.versions, services.publication
    while not guarded(part.end, lambda: versions.record_published(publication.serves)):
        if part.end.wait(_PUBLISHED_AGAIN):
            return
    part.end.wait()


def _serve_metrics(services: Services, bind: tuple[str, int], part: Part) -> None:
    collector = DeploymentMetrics(services)
    while not part.end.is_set():
        try:
            end = metrics.serve(bind, collector)
        except OSError as error:  # another process may have the address; proofs go on
            logger.error("metrics.not_served", address=f"{bind[0]}:{bind[1]}", error=str(error))
            part.end.wait(_METRICS_AGAIN)
        else:
            part.end.wait()
            end()


def _beat(services: Services, kind: str, part: Part) -> None:
    queue_state = services.registrations.queue_state if services.registrations else None
    heartbeat = Heartbeat(services.db, kind, queue_state)
    repeat(part, BEAT_SECONDS, heartbeat.beat)
    guarded(part.end, heartbeat.end)


def repeat(part: Part, seconds: float, work: Callable[[], object]) -> None:
    """Do the work at once and then every `seconds`, until the part ends."""
    while True:
        guarded(part.end, work)
        if part.end.wait(seconds):
            return


def guarded(stop: threading.Event, work: Callable[[], object]) -> bool:
    """Do the work and survive its errors: an unreachable database or AWS, and bugs of ours.

    A thread that ended would leave a process that looks alive and does nothing. Returns whether the
    result of `work` is true. After an error it pauses and returns False.
    """
    try:
        return bool(work())
    except (StoreUnavailableError, AwsUnavailableError):
        logger.warning("worker.waiting", seconds=_AFTER_FAILURE)
    except Exception as error:  # noqa: BLE001  due rows and queued messages are retried
        logger.error("worker.failed", exc_info=error)
    stop.wait(_AFTER_FAILURE)
    return False
