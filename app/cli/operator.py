"""What every command needs: the services, the operator, and refusals in one line."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import click
from flask import current_app

from app.access.callers import Operator
from app.errors import AppError, NotFoundError, ValidationFailedError
from app.services import Services


def services() -> Services:
    if "deputy" not in current_app.extensions:
        raise click.ClickException(current_app.config["PROBLEM"])
    return cast("Services", current_app.extensions["deputy"])


@contextmanager
def in_one_line(absent: str = "There is no such key.") -> Iterator[None]:
    """Turn a refusal, or a database that is away, into one line instead of a traceback."""
    try:
        yield
    except NotFoundError as error:
        raise click.ClickException(absent) from error
    except ValidationFailedError as error:
        problems = (f"{field}: {' '.join(said)}" for field, said in error.errors.items())
        raise click.ClickException("\n".join(problems)) from error
    except AppError as error:
        raise click.ClickException(error.detail) from error


def operator() -> Operator:
    return Operator(f"{getpass.getuser()} (command line)")
