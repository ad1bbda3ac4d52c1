"""Commands for the operator: `flask --app wsgi COMMAND --help`.

They need no API key, because they run where the database's password is. Their changes are in the
audit log too.
"""

import sys

import click
from flask import Flask

from app.cli import (
    audit_who,
    connections,
    database,
    doctor,
    keys,
    links,
    registrations,
    rotation,
    templates,
    tenants,
)
from app.cli.version import version
from app.cli.worker import worker

_NOUNS = [
    module.noun
    for module in (tenants, connections, keys, links, rotation, audit_who, templates, registrations)
]
COMMANDS = (version, doctor.doctor, database.migrate, database.after_restore, worker, *_NOUNS)
_NOT_BOOTED = 3  # at any other exit code, gunicorn restarts the web process forever


def register_commands(app: Flask) -> None:
    for command in COMMANDS:
        app.cli.add_command(command)


def without_settings(problem: str) -> Flask:
    """Return an application with the commands alone, for `--help` without settings.

    All other commands fail with `problem`. It is for flask's look-up of its commands. In gunicorn
    and in `flask run` the process ends.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.parent is not None:
        click.echo(problem, err=True)
        sys.exit(_NOT_BOOTED)
    app = Flask("app", static_folder=None)
    app.config["PROBLEM"] = problem
    register_commands(app)
    return app
