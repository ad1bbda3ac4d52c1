"""The deployment's health checks: what each one looks at, its findings, and what to do then.

A process is not ready when a check that it needs has failed. The other checks are about the
background. Readiness lists the cheap ones and stays 200, because another process could not answer
the request any better. `doctor` asks all of them, and app/health/vendor_checks.py has those that
only `doctor` asks.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial

from app.aws.sts import Sts, StsError, Unavailable
from app.aws.templates import Published
from app.errors import StoreUnavailableError
from app.health import heartbeats
from app.health.checks import (
    HealthCheck,
    HealthFinding,
    KeptCheck,
    Status,
    failed,
    ok,
    skipped,
    warning,
)
from app.store.database import CLOCKS_APART, Database, database_now
from app.store.revisions import KNOWN, revision

_MOMENT, _SECONDS, _MINUTE = 1.0, 5.0, 60.0  # seconds for which findings are kept
_PATIENCE = 1.0  # seconds that readiness waits for a check that the process does not need
_START = "Start one (flask --app wsgi worker), or look at its log."
_PUBLISH = (
    "Run: flask --app wsgi templates publish. If it says that they are there already, the bucket"
    " refuses callers without credentials: look at Block Public Access, of the bucket and of its"
    " account, and compare the bucket's policy with cloudformation/broker.yaml."
)
# Seconds, as long as a claim's lease. Otherwise the claim of a killed background worker would count
# as late.
_LATE = 120.0


class Health:
    """The checks, in the order in which they are shown."""

    def __init__(self, checks: list[HealthCheck]) -> None:
        self._checks = [KeptCheck(check) for check in checks]

    def missing(self) -> dict[str, list[str]]:
        """Return the failed checks that this process needs, each with its finding.

        It is empty when the process is ready.
        """
        found = {kept.check.name: kept.finding() for kept in self._checks if kept.check.needed}
        return {name: [one.seen] for name, one in found.items() if one.status is Status.FAILED}

    def findings(self, patience: float | None = _PATIENCE) -> Iterator[tuple[str, HealthFinding]]:
        """Yield each cheap check's name and finding.

        A check that is not needed gives its previous finding after `patience` seconds.
        """
        for kept in self._checks:
            if kept.check.cheap:
                yield kept.check.name, kept.finding(None if kept.check.needed else patience)

    def examine(self, more: Iterable[HealthCheck] = ()) -> Iterator[tuple[str, HealthFinding]]:
        """Yield every check's name and finding. A check after a failed one is skipped."""
        checks = {kept.check.name: kept for kept in (*self._checks, *map(KeptCheck, more))}
        found: dict[str, tuple[HealthFinding, bool]] = {}  # True: the checks after it are skipped

        def look(name: str) -> tuple[HealthFinding, bool]:
            if name not in found:
                first = next(
                    (before for before in checks[name].check.after if look(before)[1]), None
                )
                seen = (
                    skipped(f"Not looked at: {first} comes first.")
                    if first
                    else checks[name].finding()
                )
                found[name] = seen, first is not None or seen.status is Status.FAILED
            return found[name]

        yield from ((name, look(name)[0]) for name in checks)


def checks(
    db: Database,
    sts: Sts,
    templates: tuple[Callable[[], list[tuple[str, Published]]], Callable[[], dict[str, str]]],
    oldest_due: Callable[[], datetime | None],
    proofs: Callable[[], HealthFinding],
    *,
    listens: bool,
    prober: Callable[[], HealthFinding] | None,
) -> list[HealthCheck]:
    """Return the checks of the deployment that `doctor` and readiness share.

    - `listens`: there is a registration queue.
    - `proofs`: the finding of the proof queue.
    - `templates`: the published state of the templates, and the versions of permission sets that
      can't be recorded.
    - `prober`: the finding of the canary, if there is one.
    """
    stored = ("migrations",)
    found = [
        HealthCheck("database", partial(_database, db), _MOMENT, needed=True),
        HealthCheck(
            "migrations", partial(_migrations, db), _MOMENT, needed=True, after=("database",)
        ),
        # While AWS does not answer, a kept finding does not count. Requests stay away from a
        # process that is not ready, so readiness itself must find out when AWS is back. The circuit
        # breaker lets few calls through.
        HealthCheck(
            "aws", partial(_aws, sts), _SECONDS, needed=True, counts=lambda: not sts.is_silent
        ),
        HealthCheck("clock", partial(_clock, db), _SECONDS, after=stored),
        HealthCheck("workers", partial(_workers, db), _SECONDS, after=stored),
        HealthCheck("due", partial(_due, db, oldest_due), _SECONDS, after=stored),
        HealthCheck("proofs", proofs, _SECONDS, after=stored),
        HealthCheck(
            "templates", partial(_templates, *templates), _MINUTE, after=("bucket", *stored)
        ),
        (
            HealthCheck("prober", prober, _SECONDS, after=("aws", *stored))
            if prober is not None
            else HealthCheck("prober", lambda: _NO_CANARY, _MINUTE, cheap=False)
        ),
    ]
    if listens:
        found.append(
            HealthCheck(
                "registrations", partial(_registrations, db), _SECONDS, after=(*stored, "workers")
            )
        )
    return found


_NO_CANARY = skipped(
    "No canary is configured, so nothing notices a policy on your side that makes every role look"
    " safe.",
    "Launch cloudformation/canary.yaml in another account of yours (docs/install.md, Canary and"
    " stranger).",
)


def _database(db: Database) -> HealthFinding:
    try:
        revision(db)
    except StoreUnavailableError as error:
        return failed(error.detail, "Look at DEPUTY_DATABASE_URL, the database and its disk.")
    return ok("The database answers.")


def _migrations(db: Database) -> HealthFinding:
    try:
        at = revision(db)
    except StoreUnavailableError:
        return skipped("The database does not answer.")
    if at == KNOWN[-1]:
        return ok(f"The schema is at {at}.")
    if at not in {None, *KNOWN}:
        # This happens while a release is rolled out. The release before it works on its schema
        # (CONTRIBUTING.md, Add a migration).
        return warning(
            "The database's schema is a newer release's; replace this process by one of that"
            " release.",
            "Start the newer release's processes.",
        )
    return failed(
        "The database's schema is not this release's; run: flask --app wsgi migrate",
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


def _clock(db: Database) -> HealthFinding:
    with db.read() as session:
        own = heartbeats.clock_ahead(session)
        others = [(row.host, row.clock_ahead) for row in heartbeats.seen(session).lately]
    clocks = [
        ("this process", own),
        *((f"the background worker on {host}", ahead) for host, ahead in others),
    ]
    wrong = [
        f"{whose} is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the database"
        for whose, ahead in clocks
        if abs(ahead) > CLOCKS_APART
    ]
    if wrong:
        return warning(
            f"Clocks: {'; '.join(wrong)}.", "Set these machines' clocks by NTP, or the database's."
        )
    return ok(f"No clock differs by more than {CLOCKS_APART:.0f} s from the database's.")


def _workers(db: Database) -> HealthFinding:
    with db.read() as session:
        seen = heartbeats.seen(session)
    if not seen.lately:
        return failed("No background worker was seen in the last minute.", _START)
    of_kind = [f"{row.kind} {row.pid} on {row.host}" for row in seen.lately]
    more = f", and {len(of_kind) - 10} more" if len(of_kind) > 10 else ""
    return ok(f"{len(of_kind)} seen in the last minute: {', '.join(of_kind[:10])}{more}.")


def _due(db: Database, oldest_due: Callable[[], datetime | None]) -> HealthFinding:
    with db.read() as session:
        at = database_now(session)
    oldest = oldest_due()
    age = max((at - oldest).total_seconds(), 0.0) if oldest else 0.0
    if age > _LATE:
        return warning(
            f"The oldest connection that is due has waited {age:.0f} s.",
            "Start more background workers, raise DEPUTY_STS_BUDGET, or look for worker.waiting in"
            " their logs.",
        )
    return ok(f"The oldest connection that is due has waited {age:.0f} s.")


def _registrations(db: Database) -> HealthFinding:
    with db.read() as session:
        seen = heartbeats.seen(session)
    times = [at for at in (seen.heard_at, seen.unanswered_at) if at is not None]
    if not times:
        return warning("No background worker has asked the registration queue.", _START)
    age = max((seen.at - min(times)).total_seconds(), 0.0)
    if age > _LATE:
        return warning(
            f"The oldest unanswered message of a stack may be {age:.0f} s old.",
            "Look for worker.waiting and registration.unanswered in a background worker's log.",
        )
    return ok(f"No unanswered message of a stack is older than {age:.0f} s.")


def _templates(
    templates: Callable[[], list[tuple[str, Published]]], refusals: Callable[[], dict[str, str]]
) -> HealthFinding:
    try:
        wrong = [f"{url} {state}" for url, state in templates() if state is not Published.YES]
    except Unavailable:
        return warning(
            "The template bucket does not answer.", "Look at the network and the bucket."
        )
    if wrong:
        return failed(f"{'; '.join(wrong)}.", _PUBLISH)
    try:
        unrecorded = refusals()
    except StoreUnavailableError:
        return skipped("The database does not answer.")
    if unrecorded:
        return failed(
            f"Published, and not recorded: {' '.join(unrecorded.values())}",
            "Correct the file of the permission set, and publish again.",
        )
    return ok("The templates of this configuration are published.")
