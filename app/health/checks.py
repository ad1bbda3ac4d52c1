"""The deployment's health checks: what each examines, what it can find, and what to do then.

A process is not ready when a check that it needs has failed. The other checks are about background
work. Readiness lists the cheap ones of them, and stays 200 when they fail, because another process
could not answer requests any better. `doctor` runs all checks; app/health/doctor_checks.py has
those that only `doctor` runs.

A check never runs twice at the same time. A finding is kept for some seconds, because readiness is
public, and anybody could use up our calls to AWS and the database. Requests that arrive while a
check runs wait for its finding.
"""

import enum
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from typing import NamedTuple

from app.aws.sts import Sts, StsError, Unavailable
from app.aws.template_bucket import Published
from app.clock import CLOCKS_APART, seconds_between
from app.concurrency.single_flight import SingleFlight
from app.errors import StoreUnavailableError
from app.health import heartbeats
from app.log import logger
from app.store.database import Database, database_now
from app.store.migrations import REVISION, revision

_PATIENCE = 1.0  # seconds that readiness waits for a check that the process does not need
_PATIENCE_FOR_NEEDED = 4.0  # for all needed checks together; load balancers wait five seconds
START = (
    "Start one (flask --app wsgi worker), or look for worker.waiting and worker.failed in its log."
)
_PUBLISH = (
    "Run: flask --app wsgi templates publish. If it says that they are there already, the bucket"
    " refuses callers without credentials: look at Block Public Access, of the bucket and of its"
    " account, and compare the bucket's policy with cloudformation/broker.yaml."
)
# Seconds after which a due connection or an unanswered message is late. A claim's lease is as long,
# so that the claim of a killed background worker does not count as late.
LATE = 120.0


class Status(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class HealthFinding(NamedTuple):
    """The result of a check.

    `seen` says in numbers and words what was observed. `next` says what to do, and is empty if
    there is nothing to do.
    """

    status: Status
    seen: str
    next: str = ""


ok = partial(HealthFinding, Status.OK)
# Something is wrong, but Deputy still works, at least for some time.
warning = partial(HealthFinding, Status.WARNING)
# A part of Deputy's service does not work.
failed = partial(HealthFinding, Status.FAILED)
# The check is not configured, or another check comes first.
skipped = partial(HealthFinding, Status.SKIPPED)

_NOT_YET = warning("No answer yet.", "Ask again in some seconds.")
_SILENT = failed("No answer in time.", "Look at what this check asks: it may hang.")
_BROKEN = failed("The check itself failed.", "Look for check.failed in the log.")


@dataclass
class HealthCheck:
    """A check and its last finding. Safe to share among threads and greenlets."""

    name: str
    _look: Callable[[], HealthFinding]
    after: str = ""  # names of checks that must succeed before this one is useful
    seconds: float = 5.0  # how long a finding is kept
    needed: bool = False  # this process can't work while the check fails
    counts: Callable[[], bool] = lambda: True  # whether a finding may be kept or reused now

    _looks: SingleFlight[str, HealthFinding] = field(default_factory=SingleFlight)
    # The last finding, and the time until which it is kept
    _last: tuple[HealthFinding, float] = (_NOT_YET, 0.0)

    def finding(self, patience: float | None = None) -> HealthFinding:
        """Return the kept finding, or a new one.

        After `patience` seconds (None: no timeout) return the previous finding. A needed check
        counts as failed instead.
        """
        if kept := self._kept():
            return kept
        look, _ = self._looks.join(self.name, lambda: self._kept() or self._look_again())
        try:
            return look.result(timeout=patience)
        except FutureTimeoutError:
            return _SILENT if self.needed else self._last[0]

    def _kept(self) -> HealthFinding | None:
        finding, until = self._last
        return finding if time.monotonic() < until and self.counts() else None

    def _look_again(self) -> HealthFinding:
        try:
            finding = self._look()
        except StoreUnavailableError:
            finding = skipped("The database does not answer.")
        except Exception as error:  # noqa: BLE001
            # A bug in a check is kept as a finding too. Otherwise each request would repeat it.
            logger.error("check.failed", check=self.name, exc_info=error)
            finding = _BROKEN
        until = time.monotonic()
        if self.counts():
            until += self.seconds
        self._last = finding, until
        return finding


@dataclass(frozen=True)
class Health:
    """The checks, in the order in which they are shown: those for `doctor` alone come first."""

    _thorough: list[HealthCheck]
    _checks: list[HealthCheck]

    def missing(self) -> dict[str, list[str]]:
        """Return the failed checks that this process needs, and their findings.

        The result is empty when the process is ready.
        """
        missing, deadline = {}, time.monotonic() + _PATIENCE_FOR_NEEDED
        for check in self._checks:
            if not check.needed:
                continue
            finding = check.finding(max(0.0, deadline - time.monotonic()))
            if finding.status is Status.FAILED:
                missing[check.name] = [finding.seen]
            if finding is _SILENT:
                break  # no time is left for the others, which may be well
        return missing

    def findings(self, patience: float | None = _PATIENCE) -> Iterator[tuple[str, HealthFinding]]:
        """Yield the name and the finding of each check that readiness runs.

        A check that is not needed gives its previous finding after `patience` seconds.
        """
        deadline = time.monotonic() + _PATIENCE_FOR_NEEDED
        for check in self._checks:
            rest = max(0.0, deadline - time.monotonic())
            yield check.name, check.finding(rest if check.needed else patience)

    def examine(self, *more: HealthCheck) -> Iterator[tuple[str, HealthFinding]]:
        """Yield every check's name and finding. A check after a failed one is skipped."""
        checks = {check.name: check for check in (*self._thorough, *self._checks, *more)}

        @cache
        def look(name: str) -> tuple[HealthFinding, bool]:
            """Return the check's finding, and whether checks after it are skipped."""
            for earlier in checks[name].after.split():
                if look(earlier)[1]:
                    return skipped(f"Not looked at: {earlier} comes first."), True
            finding = checks[name].finding()
            return finding, finding.status is Status.FAILED

        for name in checks:
            yield name, look(name)[0]


def own_checks(database: Database, sts: Sts) -> list[HealthCheck]:
    """Return the checks of the database, AWS and the background workers."""
    return [
        HealthCheck("database", partial(_database, database), seconds=1.0, needed=True),
        HealthCheck(
            "migrations", partial(_migrations, database), "database", seconds=1.0, needed=True
        ),
        # While AWS does not answer, no finding is kept. A process that is not ready gets no other
        # requests, so readiness itself must find out when AWS is back. The circuit breaker lets few
        # calls through.
        HealthCheck("aws", partial(_aws, sts), needed=True, counts=lambda: not sts.is_silent),
        HealthCheck("clock", partial(_clock, database), "migrations"),
        HealthCheck("workers", partial(_workers, database), "migrations"),
    ]


def _database(database: Database) -> HealthFinding:
    try:
        revision(database)
        was_standby = database.leave_standby()
    except StoreUnavailableError as error:
        return failed(
            error.detail, "Look at DEPUTY_DATABASE_URL, and the database's disk and rights."
        )
    if was_standby:
        return failed(
            "The database answers, but accepts no writes.",
            "Let DEPUTY_DATABASE_URL lead to the primary, or end what makes it read-only.",
        )
    return ok("The database answers.")


def _migrations(database: Database) -> HealthFinding:
    current = revision(database)
    if current == REVISION:
        return ok(f"The schema is at {current}.")
    if current is not None:
        return failed(
            f"The database's schema, {current}, belongs to another release.",
            "Run that release, or begin with an empty database: before 1.0 there is no upgrade.",
        )
    return failed(
        "The database has no schema yet; run: flask --app wsgi migrate",
        "Run: flask --app wsgi migrate",
    )


def _aws(sts: Sts) -> HealthFinding:
    arn = sts.broker.arn
    try:
        identity = sts.own_identity()
    except StsError:
        return failed(
            "AWS does not answer.", "Look at the network: STS of AWS_REGION must be reachable."
        )
    if identity is None:
        return failed(
            "Deputy has no AWS credentials, or AWS refuses them.",
            f"Give this process the credentials of {arn}: by its task role or instance profile, or"
            " in the environment.",
        )
    if not identity:
        return failed(
            "Our AWS credentials are not those of DEPUTY_BROKER_PRINCIPAL_ARN.",
            f"Run it as {arn}, or set DEPUTY_BROKER_PRINCIPAL_ARN to the principal that customers'"
            " roles trust.",
        )
    return ok("Our AWS credentials are those of DEPUTY_BROKER_PRINCIPAL_ARN.")


def _clock(database: Database) -> HealthFinding:
    with database.read() as db:
        own, workers = heartbeats.clock_ahead(db), heartbeats.live_workers(db)
    clocks = [(f"the background worker on {worker.host}", worker.clock_ahead) for worker in workers]
    wrong = []
    for clock, ahead in [("this process", own), *clocks]:
        if abs(ahead) > CLOCKS_APART:
            side = "ahead of" if ahead > 0 else "behind"
            wrong.append(f"{clock} is {abs(ahead):.1f} s {side} the database")
    if wrong:
        return warning(
            f"Clocks: {'; '.join(wrong)}.", "Set these machines' clocks by NTP, or the database's."
        )
    return ok(f"No clock differs by more than {CLOCKS_APART:.0f} s from the database's.")


def _workers(database: Database) -> HealthFinding:
    with database.read() as db:
        workers = heartbeats.live_workers(db)
    if not workers:
        return failed("No background worker was seen in the last minute.", START)
    names = [f"{worker.pid} on {worker.host}" for worker in workers[:10]]
    if len(workers) > 10:
        names.append(f"and {len(workers) - 10} more")
    return ok(f"{len(workers)} seen in the last minute: {', '.join(names)}.")


def check_due(database: Database, oldest_due: Callable[[], datetime | None]) -> HealthFinding:
    with database.read() as db:
        read_at = database_now(db)
    age = seconds_between(oldest_due(), read_at)
    if age > LATE:
        return warning(
            f"The oldest connection that is due has waited {age:.0f} s.",
            "Start more background workers, raise DEPUTY_STS_BUDGET, or look for worker.waiting in"
            " their logs.",
        )
    return ok(f"The oldest connection that is due has waited {age:.0f} s.")


def check_templates(
    templates: Callable[[], list[tuple[str, Published]]], refusals: Callable[[], dict[str, str]]
) -> HealthFinding:
    try:
        states = templates()
    except Unavailable:
        return warning(
            "The template bucket does not answer.", "Look at the network and the bucket."
        )
    wrong = [f"{url} {state}" for url, state in states if state is not Published.YES]
    if wrong:
        return failed(f"{'; '.join(wrong)}.", _PUBLISH)
    if unrecorded := refusals():
        return failed(
            f"Published, and not recorded: {' '.join(unrecorded.values())}",
            "Correct the file of the permission set, and publish again.",
        )
    return ok("The templates of this configuration are published.")
