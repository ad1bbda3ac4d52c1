"""The deployment's health."""

import sys
from collections.abc import Iterator
from functools import partial

import click
from flask import current_app
from flask.cli import with_appcontext

from app import log
from app.cli.connections import findings
from app.cli.operator import AS_JSON, example_of, services, show
from app.health.checks import HealthCheck, HealthFinding, Status, failed, ok
from app.proofs.proof_queue import ProofQueue

_EXIT = {Status.FAILED: 2, Status.WARNING: 1}


@click.command("doctor", epilog=example_of("doctor --json"))
@AS_JSON
@with_appcontext
@log.quiet()
def doctor(*, as_json: bool) -> None:
    """Check the whole deployment, and say what to do.

    Exits with 0 if nothing is wrong, with 1 after warnings, and with 2 if a check has failed.
    Changes nothing.
    """
    found = [
        {"name": name, "status": one.status, "seen": one.seen, "next": one.next}
        for name, one in _examined()
    ]
    show(
        {"checks": found},
        lambda them: findings(them["checks"], "status", "seen", "next"),
        as_json=as_json,
    )
    sys.exit(max(_EXIT.get(row["status"], 0) for row in found))  # type: ignore[call-overload]


def _examined() -> Iterator[tuple[str, HealthFinding]]:
    if problem := current_app.config.get("PROBLEM"):
        seen = " ".join(problem.splitlines())
        yield (
            "settings",
            failed(seen, "Set these variables for every process; docs/settings.md lists them all."),
        )
        return
    # Celery, which other commands need not load
    from app.background.celery_app import message_broker  # noqa: PLC0415

    made = services()
    yield from made.health.examine(
        [
            HealthCheck("backlog", partial(_backlog, made.proof_queue), 0.0, after=("migrations",)),
            HealthCheck("celery", partial(message_broker, made.config), 0.0),
        ]
    )


def _backlog(queue: ProofQueue) -> HealthFinding:
    """Count the due proofs.

    It is not part of readiness: after an outage there may be a million rows to count.
    """
    waiting = queue.backlog()
    return ok(f"{waiting['urgent']} urgent proofs and {waiting['routine']} routine ones are due.")
