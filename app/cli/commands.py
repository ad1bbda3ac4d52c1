"""The parts that all commands need.

They are the services, the operator, nouns with their verbs, types of options such as points in
time, refusals printed on one line, and output as aligned tables or JSON. The tables use no library:
a library would be a dependency, and would need more lines of configuration than the tables have.
"""

import enum
import functools
import getpass
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, cast

import click
from flask import current_app
from flask.cli import AppGroup
from werkzeug.local import LocalProxy

from app import log
from app.clock import YEARS, as_given, now
from app.config import ConfigError
from app.errors import AppError, NotFoundError, StoreUnavailableError, ValidationFailedError
from app.identity import OperatorPrincipal
from app.services import Services
from app.settings.valid_values import is_line
from app.store.models.tenant import NAME_MAX

Row = dict[str, Any]
Text = Callable[[Any], Iterable[str]]

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and bytes that are not UTF-8
_NO_TABLE = re.compile("relation .* does not exist")
_ONE_OF = {"webhooks": "webhook endpoint"}  # if it is not the noun without its `s`
AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


def loaded_services() -> Services:
    """Return the services themselves, for threads without the application's context."""
    if "deputy" not in current_app.extensions:
        raise click.ClickException(current_app.config["PROBLEM"])
    return cast("Services", current_app.extensions["deputy"])


services = cast("Services", LocalProxy(loaded_services))


def operator() -> OperatorPrincipal:
    """Return the person who runs this command.

    The name is the one of `--as`, which is a claim, or else the login user's. After sudo that is
    the user who called it.
    """
    claimed = click.get_current_context().meta.get(_CLAIMED)
    login = getpass.getuser()
    caller = os.environ.get("SUDO_USER", login)  # noqa: TID251 - sudo's variable, not a setting
    source = f", claimed by {caller}" if claimed else ""
    if not source and caller != login:
        source = f", sudo to {login}"
    return OperatorPrincipal(f"{claimed or caller} (command line{source})")


def _claim(context: click.Context, param: click.Parameter, name: str | None) -> None:
    """Keep the claimed name for `operator`, or demand one where nobody is at a terminal."""
    if name is None and not sys.stdin.isatty():
        raise click.UsageError(
            "Say who you are, for the audit log: --as NAME, or DEPUTY_OPERATOR. Without a terminal"
            " the login user may be anybody's."
        )
    if name is not None and (len(name) > _CLAIMED_MAX or not is_line(name)):
        problem = f"must be one line of 1 to {_CLAIMED_MAX} printable characters."
        raise click.BadParameter(problem, param=param)
    context.meta[_CLAIMED] = name


_CLAIMED, _CLAIMED_MAX = "deputy.operator", 80
_AS = click.Option(
    ["--as"],
    envvar="DEPUTY_OPERATOR",
    metavar="NAME",
    expose_value=False,
    callback=_claim,
    help="Who you are, for the audit log (or DEPUTY_OPERATOR; default: the login user).",
)


def show(answer: Any, text: Text, *, as_json: bool) -> None:
    """Print a command's result.

    `text` formats it as lines. An iterator is printed as it goes, in JSON one line for each row.
    Raises ClickException if the output can't be written, for example to a full disk.
    """
    try:
        _print(answer, text, as_json=as_json)
    except BrokenPipeError:  # click ends silently, as other commands before `head` do
        raise
    except OSError as error:
        raise click.ClickException(f"The result can't be printed: {error.strerror}.") from error


def _print(answer: Any, text: Text, *, as_json: bool) -> None:
    if isinstance(answer, Iterator):
        for rows in answer:
            for line in map(_as_json, rows) if as_json else text(rows):
                click.echo(line)
    elif as_json:
        click.echo(_as_json({"answer": answer} if isinstance(answer, str) else answer, indent=2))
    else:
        click.echo("\n".join(text(answer)))


def _as_json(answer: Any, indent: int | None = None) -> str:
    return json.dumps(answer, default=_plain, indent=indent)


def lines(answer: Any) -> Iterator[str]:
    """Yield the lines of a sentence, of a table of rows, or of one row.

    One row is a table of names and values, followed by the tables that it contains.
    """
    if isinstance(answer, str):
        yield answer
    elif isinstance(answer, Sequence):
        yield from table(answer)
    else:
        cells, tables = [], []
        for name, value in answer.items():
            if isinstance(value, list) and value and isinstance(value[0], Mapping):
                tables.append((name, value))
            else:
                cells.append((name, cell(value)))
        yield from _aligned(cells)
        for name, rows in tables:
            yield from ("", f"{name}:", *table(rows))


def row_of(thing: object, names: str) -> Row:
    """Return a row of attributes. `names`: their names, separated by spaces.

    `tenant.name` is the name of the thing's tenant, in the column `tenant`.
    """
    return {name.partition(".")[0]: attrgetter(name)(thing) for name in names.split()}


def table(rows: Sequence[Row], names: Sequence[str] = ()) -> Iterator[str]:
    """Yield a header, and a line for each row. `names`: the columns (default: all)."""
    if rows:
        names = names or [*rows[0]]
        yield from _aligned([names, *([cell(row[name]) for name in names] for row in rows)])
    else:
        yield "None found."


def _aligned(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = ""
        for cell, width in zip(row, widths, strict=True):
            line += cell + " " * (width + 2 - _width(cell))
        yield line.rstrip()


def _width(text: str) -> int:
    """Return the text's width in columns of a terminal."""
    width = len(text)
    for letter in text:
        if unicodedata.combining(letter):
            width -= 1
        elif unicodedata.east_asian_width(letter) in "WF":
            width += 1
    return width


def cell(value: Any) -> str:
    """Return a value as one line without control characters.

    Customers wrote some of the values, and a terminal would obey control characters.
    """
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(cell, value))
    text = value.value if isinstance(value, enum.Enum) else str(value)
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


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
        self, example: str = "", *, columns: str = "", text: Text = lines, changes: bool = False
    ) -> Callable[[Callable[..., Any]], click.Command]:
        """Return a decorator that makes a function a command.

        The command has the function's name without `_command` at the end. `example`: its arguments,
        for `--help`. `columns`: those of its table; JSON has the other fields too. `text`: formats
        the function's result as lines, if the result is no such table. `changes`: it writes an
        event, so it takes the operator's name.
        """
        if columns:
            text = functools.partial(table, names=columns.split())

        def decorate(function: Callable[..., Any]) -> click.Command:
            @self.command()
            @AS_JSON
            @functools.wraps(function)
            def run(*, as_json: bool, **options: Any) -> None:
                params = click.get_current_context().command.params
                _ensure_text(params, options)
                with (
                    log.quiet(),
                    _in_one_line(_ONE_OF.get(str(self.name), str(self.name).removesuffix("s"))),
                ):
                    for param in params:
                        if isinstance(param.type, Lookup) and options[param.name] is not None:
                            options[param.name] = param.type.find(options[param.name])
                    _ensure_in_order(options.get("since"), options.get("until"))
                    show(function(**options), text, as_json=as_json)

            if changes:
                run.params.append(_AS)
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


def _ensure_in_order(since: datetime | None, until: datetime | None) -> None:
    """Raise UsageError for a period that ends before it begins, in which nothing would be found."""
    if since is not None and until is not None and until <= since:
        raise click.UsageError("--until must be later than --since.")


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
    except StoreUnavailableError as error:
        raise click.ClickException(_with_words_of_driver(error)) from error
    except (AppError, ConfigError) as error:
        raise click.ClickException(str(error)) from error


def _with_words_of_driver(error: StoreUnavailableError) -> str:
    words = error.words_of_driver
    if words is None:
        return str(error)
    if _NO_TABLE.search(words):
        return f"The database is not migrated ({words}). Run: flask --app wsgi migrate"
    return f"{error} The driver says: {words}."


def confirm(about: Row, question: str) -> None:
    """Show what a command is about, and ask whether to go on, as `ask` does."""
    click.echo("\n".join(lines(about)), err=True)
    ask(question)


def ask(question: str) -> None:
    """Ask whether to go on. Any answer but yes ends the command."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:  # Ctrl-C, or there is nobody to answer
        agreed = False
    if not agreed:
        raise click.ClickException(
            "Nothing was changed. --help says how to run it without the question."
        )


def text(value: str) -> str:
    """Accept a name or a reason by the API's rule: one line of text.

    Lists and the audit log show it on one line. `--help` shows this function's name.
    """
    if len(value) > NAME_MAX or not is_line(value):
        raise ValueError(f"must be one line of 1 to {NAME_MAX} printable characters.")
    return value


REASON = click.option("--reason", required=True, type=text, help="For the audit log.")


_DAYS_AGO = {"today": 0, "yesterday": 1}
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
TIME_HELP = "yesterday, today, 90m, 12h, 7d, or an ISO 8601 time (UTC)."
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def time(text: str) -> datetime:
    """Accept a point in time. `--help` shows this function's name."""
    if text in _DAYS_AGO:
        midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=_DAYS_AGO[text])
    try:
        if ago := _AGO.fullmatch(text):
            return as_given(now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
        given = datetime.fromisoformat(text)
        return as_given(given if given.tzinfo else given.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ValueError(
            "must be yesterday, today, an age such as 90m, 12h or 7d, or an ISO 8601 time"
            f" (UTC). It {YEARS}"
        ) from None
