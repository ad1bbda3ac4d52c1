"""The parts that all commands need.

They are the services, the operator, nouns with their verbs, and refusals in one line.
"""

import functools
import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import click
from flask import current_app
from flask.cli import AppGroup

from app import log

# for commands
from app.cli.output import Row, Text, columns, lines, row_of, show, table  # noqa: F401
from app.errors import AppError, NotFoundError, ValidationFailedError
from app.identity import OperatorPrincipal
from app.services import Services
from app.settings.checks import is_line
from app.store.models.tenant import NAME_MAX
from app.store.pages import every, pages  # noqa: F401

AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


def services() -> Services:
    if "deputy" not in current_app.extensions:
        raise click.ClickException(current_app.config["PROBLEM"])
    return cast("Services", current_app.extensions["deputy"])


def operator() -> OperatorPrincipal:
    return OperatorPrincipal(f"{getpass.getuser()} (command line)")


class Noun(AppGroup):
    """The commands about one noun.

    Each command returns its result, which is printed as a table or as JSON.
    """

    def verb(
        self, name: str, example: str = "", *, text: Text = lines
    ) -> Callable[[Callable[..., Any]], Any]:
        """Make the function a command.

        `example`: its arguments, for `--help`. `text`: formats the function's result as lines.
        """

        def decorate(function: Callable[..., Any]) -> Any:
            @self.command(name, epilog=example_of(f"{self.name} {name} {example}"))
            @AS_JSON
            @functools.wraps(function)
            def run(*args: Any, as_json: bool, **options: Any) -> None:
                _ensure_text(click.get_current_context())
                with (
                    log.quiet(),
                    in_one_line(f"There is no such {str(self.name).removesuffix('s')}."),
                ):
                    show(function(*args, **options), text, as_json=as_json)

            return function

        return decorate


def _ensure_text(context: click.Context) -> None:
    """Refuse text that no database stores: bytes that are not UTF-8, and NUL.

    Raises BadParameter.
    """
    for param in context.command.params:
        given = context.params[str(param.name)]
        for value in given if isinstance(given, tuple) else (given,):
            if isinstance(value, str) and (
                "\0" in value or value != value.encode(errors="ignore").decode()
            ):
                raise click.BadParameter("must be text in UTF-8, without NUL.", context, param)


def example_of(command: str) -> str:
    return f"\b\nExample:\n  flask --app wsgi {command}".rstrip()


@contextmanager
def in_one_line(absent: str = "There is no such key.") -> Iterator[None]:
    """Turn a refusal, or an unavailable database, into one line instead of a traceback."""
    try:
        yield
    except NotFoundError as error:
        raise click.ClickException(absent) from error
    except ValidationFailedError as error:
        problems = (f"{field}: {' '.join(said)}" for field, said in error.errors.items())
        raise click.ClickException("\n".join(problems)) from error
    except AppError as error:
        raise click.ClickException(error.detail) from error


def a_line(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Check a name or a reason by the API's rule: one line of text.

    Lists and the audit log show it on one line. None: not given.
    """
    if value is not None and (len(value) > NAME_MAX or not is_line(value)):
        raise click.BadParameter(f"must be one line of 1 to {NAME_MAX} printable characters.")
    return value


REASON = click.option("--reason", required=True, callback=a_line, help="For the audit log.")
TENANT = click.argument("tenant")
