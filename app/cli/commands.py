"""Commands for the operator at the machine: `flask --app wsgi COMMAND --help`.

They need no API key: whoever can run them has the database already. What they change is in the audit log too.
"""

import sys

import click
from flask import Flask

from app.cli.database import migrate
from app.cli.keys import keys
from app.cli.registrations import registrations
from app.cli.templates import templates
from app.cli.worker import worker

_NOT_BOOTED = 3  # gunicorn starts a worker that ends with any other code again, and again


def register_commands(app: Flask) -> None:
    for command_or_group in (migrate, worker, templates, keys, registrations):
        app.cli.add_command(command_or_group)


def without_settings(problem: str) -> Flask:
    """The commands alone, so that `--help` works; one that needs the settings says what is wrong with them.

    That is where flask looks its commands up. Anywhere else, in gunicorn or in `flask run`, the process ends.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.parent is not None:
        click.echo(problem, err=True)
        sys.exit(_NOT_BOOTED)
    app = Flask("app", static_folder=None)
    app.config["PROBLEM"] = problem
    register_commands(app)
    return app
