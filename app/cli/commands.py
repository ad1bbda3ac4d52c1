"""Commands for the operator: `flask --app wsgi COMMAND --help`.

They need no API key, because they run where the database's password is. Their changes are in the
audit log too.
"""

import sys

import click
from flask import Flask

from app.cli import (
    audit,
    connections,
    customers,
    deployment,
    keys,
    onboarding,
    rotation,
    templates,
    tenants,
    webhooks,
)

COMMANDS = (
    deployment.version,
    deployment.doctor,
    deployment.migrate,
    deployment.after_restore,
    deployment.worker,
    tenants.noun,
    customers.noun,
    connections.noun,
    keys.noun,
    onboarding.links,
    rotation.noun,
    audit.noun,
    templates.noun,
    onboarding.registrations,
    webhooks.noun,
)
_NOT_BOOTED = 3  # after any other exit code, gunicorn restarts the web process forever


def register_commands(app: Flask) -> None:
    for command in COMMANDS:
        app.cli.add_command(command)


def without_settings(problem: str) -> Flask:
    """Return an application with the commands alone, for `--help` without settings.

    Commands that need settings fail with `problem`. The application is for flask's look-up of its
    commands. In gunicorn and in `flask run` this ends the process instead.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.parent is not None:
        click.echo(problem, err=True)
        sys.exit(_NOT_BOOTED)
    app = Flask("app", static_folder=None)
    app.config["PROBLEM"] = problem
    register_commands(app)
    return app
