"""The deployment as a whole: its release, its database's schema, its health, background workers."""

import signal
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from threading import Event

import click
from flask import current_app

from app import VERSION, log
from app.audit.restore import record_restore
from app.background.worker import run_worker
from app.cli.commands import (
    AS_JSON,
    ROOT,
    Row,
    example_of,
    loaded_services,
    operator,
    services,
    show,
)
from app.cli.connections import describe_findings
from app.health.checks import HealthCheck, HealthFinding, Status, failed, ok
from app.proofs.proof_queue import ProofQueue
from app.store.database import store_errors
from app.store.migrations import REVISION, UnfitDatabaseError, ensure_fit, revision, upgrade


@ROOT.verb(text=lambda row: [f"Deputy {row['version']}, database schema {row['schema']}"])
def version() -> Row:
    """Print this release's version, and its database schema.

    It reads neither the settings nor the database. `doctor` compares the database's schema with
    this one.
    """
    return {"version": VERSION, "schema": REVISION}


def _describe_migration(row: Row) -> Iterator[str]:
    before, after = row["before"], row["after"]
    yield f"Nothing to do: {after}" if before == after else f"{before or 'empty'} → {after}"


@ROOT.verb(text=_describe_migration)
def migrate() -> Row:
    """Make this release's schema in an empty database. Safe to repeat."""
    db = services.db
    with store_errors():
        before = revision(db)
        try:
            ensure_fit(db, before)
            upgrade(db)
        except UnfitDatabaseError as error:
            raise click.ClickException(str(error)) from error
        return {"before": before, "after": revision(db)}


def _describe_restore(row: Row) -> Iterator[str]:
    reaches = row["reaches"].isoformat(timespec="seconds") if row["reaches"] else "no event"
    yield (
        f"The database reaches to {reaches}. What was revoked, suspended or deleted since then is"
        " back: revoke, suspend or delete it again."
    )


@ROOT.verb(text=_describe_restore, changes=True)
def after_restore() -> Row:
    """Tell all processes that the database is an older copy. Run it after each restore.

    Safe to repeat.
    """
    return {"reaches": record_restore(services.db, operator().actor)}


@ROOT.command("doctor", epilog=example_of("doctor --json"))
@AS_JSON
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
    return services.health.examine(
        HealthCheck("backlog", partial(_backlog, services.proof_queue), "migrations")
    )


def _backlog(queue: ProofQueue) -> HealthFinding:
    """Count the due proofs.

    Readiness leaves this out: after an outage there may be a million rows to count.
    """
    due = queue.backlog()
    return ok(f"{due['urgent']} urgent proofs and {due['routine']} routine ones are due.")


@ROOT.command("worker", epilog=example_of("worker"))
def worker() -> None:
    """Prove due connections, answer stacks, deliver webhooks.

    It runs until Ctrl-C, and then ends what it has begun. While none runs, these wait.
    Any number may run, on any number of machines that share the database.
    """
    deputy, stop = loaded_services(), Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    click.echo("The background worker is running. Press Ctrl-C to stop it.")
    if not run_worker(deputy, stop):
        raise click.ClickException(
            "The background worker stopped because a part failed. See its log; start it again."
        )
