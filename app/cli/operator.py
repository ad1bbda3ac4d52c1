"""The parts that all commands need.

They are the services, the operator, nouns with their verbs, and refusals printed on one line.
"""

import functools
import getpass
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import click
from flask import current_app
from flask.cli import AppGroup
from werkzeug.local import LocalProxy

from app import log

# Imported for the modules of commands
from app.cli.output import Row, Text, columns, lines, row_of, show, table  # noqa: F401
from app.config import ConfigError
from app.errors import AppError, NotFoundError, ValidationFailedError
from app.identity import OperatorPrincipal
from app.services import Services
from app.settings.checks import is_line
from app.store.models.tenant import NAME_MAX
from app.store.pages import every, pages  # noqa: F401

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and bytes that are not UTF-8
AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


def loaded_services() -> Services:
    """Return the services themselves, for threads without the application's context."""
    if "deputy" not in current_app.extensions:
        raise click.ClickException(current_app.config["PROBLEM"])
    return cast("Services", current_app.extensions["deputy"])


services = cast("Services", LocalProxy(loaded_services))
operator = cast(
    "OperatorPrincipal",
    LocalProxy(lambda: OperatorPrincipal(f"{getpass.getuser()} (command line)")),
)


class Lookup(click.ParamType[Any]):
    """The type of a text that names a row. The command gets what `find` returns for it."""

    name = "text"

    def __init__(self, find: Callable[[str], Any]) -> None:
        self.find = find


class Noun(AppGroup):
    """The commands about one noun.

    Each command returns its result, which is printed as a table or as JSON.
    """

    def verb(
        self, example: str = "", *, text: Text = lines
    ) -> Callable[[Callable[..., Any]], click.Command]:
        """Return a decorator that makes a function a command.

        The command has the function's name without `_command` at the end. `example`: its arguments,
        for `--help`. `text`: formats the function's result as lines.
        """

        def decorate(function: Callable[..., Any]) -> click.Command:
            @self.command()
            @AS_JSON
            @functools.wraps(function)
            def run(*, as_json: bool, **options: Any) -> None:
                params = click.get_current_context().command.params
                _ensure_text(params, options)
                with log.quiet(), _in_one_line(str(self.name).removesuffix("s")):
                    for param in params:
                        if isinstance(param.type, Lookup) and options[param.name] is not None:
                            options[param.name] = param.type.find(options[param.name])
                    show(function(**options), text, as_json=as_json)

            run.epilog = example_of(self.name, run.name, example)
            return run

        return decorate


ROOT = Noun()  # the commands without a noun


def _ensure_text(params: list[click.Parameter], options: dict[str, Any]) -> None:
    """Raise BadParameter for text that PostgreSQL can't store."""
    for param in params:
        option = options.get(param.name)
        text = "".join(option) if isinstance(option, tuple) else str(option)
        if _NOT_TEXT.search(text):
            raise click.BadParameter("must be text in UTF-8, without NUL.", param=param)


def example_of(*words: str | None) -> str:
    return f"\b\nExample:\n  flask --app wsgi {' '.join(filter(None, words))}"


@contextmanager
def _in_one_line(noun: str) -> Iterator[None]:
    """Turn a refusal, or an unavailable database, into one line instead of a traceback."""
    try:
        yield
    except NotFoundError as error:
        raise click.ClickException(f"There is no such {noun}.") from error
    except ValidationFailedError as error:
        problems = [f"{field}: {' '.join(texts)}" for field, texts in error.errors.items()]
        raise click.ClickException("\n".join(problems)) from error
    except (AppError, ConfigError) as error:
        raise click.ClickException(str(error)) from error


def confirm(about: Row, question: str) -> None:
    """Show what a command is about, and ask whether to go on. Any answer but yes ends it."""
    click.echo("\n".join(lines(about)), err=True)
    click.confirm(question, abort=True, err=True)


def text(value: str) -> str:
    """Accept a name or a reason by the API's rule: one line of text.

    Lists and the audit log show it on one line. `--help` shows this function's name.
    """
    if len(value) > NAME_MAX or not is_line(value):
        raise ValueError(f"must be one line of 1 to {NAME_MAX} printable characters.")
    return value


REASON = click.option("--reason", required=True, type=text, help="For the audit log.")
