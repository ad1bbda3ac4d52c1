"""The deployment's health."""

import sys
from collections.abc import Iterable
from functools import partial

import click
from flask import current_app
from flask.cli import with_appcontext

from app import log
from app.cli.connections import describe_findings
from app.cli.operator import AS_JSON, example_of, services, show
from app.health.checks import HealthCheck, HealthFinding, Status, failed, ok
from app.proofs.proof_queue import ProofQueue


@click.command("doctor", epilog=example_of("doctor --json"))
@AS_JSON
@with_appcontext
@log.quiet()
def doctor(*, as_json: bool) -> None:
    """Check the whole deployment, and say what to do.

    Exits with 0 if nothing is wrong, with 1 after warnings, and with 2 if a check has failed.
    Changes nothing.
    """
    rows = [{"name": name} | finding._asdict() for name, finding in _examined()]
    show(
        {"checks": rows},
        lambda answer: describe_findings(answer["checks"], "status", "seen", "next"),
        as_json=as_json,
    )
    statuses = {row["status"] for row in rows}
    if Status.FAILED in statuses:
        sys.exit(2)
    if Status.WARNING in statuses:
        sys.exit(1)


def _examined() -> Iterable[tuple[str, HealthFinding]]:
    if problem := current_app.config.get("PROBLEM"):
        to_do = "Set these variables for every process; docs/settings.md lists them all."
        return [("settings", failed(" ".join(problem.splitlines()), to_do))]
    # Imported lazily: other commands need not load Celery
    from app.background.celery_app import message_broker  # noqa: PLC0415

    return services().health.examine(
        HealthCheck("backlog", partial(_backlog, services().proof_queue), "migrations"),
        HealthCheck("celery", partial(message_broker, services().config)),
    )


def _backlog(queue: ProofQueue) -> HealthFinding:
    """Count the due proofs.

    Readiness leaves this out: after an outage there may be a million rows to count.
    """
    due = queue.backlog()
    return ok(f"{due['urgent']} urgent proofs and {due['routine']} routine ones are due.")
