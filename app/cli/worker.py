"""The background worker on this machine."""

import signal
import threading

import click
from flask.cli import with_appcontext

from app.background.single_machine import Worker
from app.cli.operator import services


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Do what is due in the background, on this machine, until Ctrl-C: prove connections.

    It needs no broker. Beyond one machine set DEPUTY_BROKER_URL and run: celery --app celery_app worker --beat
    """
    stop = threading.Event()
    work = Worker(services(), stop)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    click.echo("The worker is running; Ctrl-C ends it.")
    if not work.run():
        raise click.ClickException("A part of the worker has ended, so it ends; its log says why. Start it again.")
