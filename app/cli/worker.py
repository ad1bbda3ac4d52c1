"""The command that runs a background worker without Celery."""

import signal
from functools import partial
from threading import Event

import click
from flask.cli import with_appcontext

from app.background.worker import run_worker
from app.cli.operator import example_of, services


@click.command("worker", epilog=example_of("worker"))
@with_appcontext
def worker() -> None:
    """Prove the connections that are due, until Ctrl-C.

    Any number may run, on any number of machines that share the database. docs/install.md says when
    Celery is the better choice: celery --app celery_app worker --beat
    """
    stop, work = Event(), partial(run_worker, services())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    click.echo("The background worker is running. Press Ctrl-C to stop it.")
    if not work(stop):
        raise click.ClickException(
            "The background worker stopped because a part failed. See its log; start it again."
        )
