"""The output of commands: aligned tables, or JSON.

No library: one that draws tables would need more lines of configuration than this module has, and
would be a dependency.
"""

import enum
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

Row = Mapping[str, Any]
Text = Callable[[Any], Iterable[str]]


def show(answer: Any, text: Text, *, as_json: bool) -> None:
    """Print a command's result.

    `text` formats it as lines. An iterator is printed as it goes, in JSON one line for each row.
    """
    if isinstance(answer, Iterator):
        for some in answer:
            for line in (
                (json.dumps(row, default=_plain) for row in some) if as_json else text(some)
            ):
                click.echo(line)
    elif as_json:
        click.echo(
            json.dumps(
                {"answer": answer} if isinstance(answer, str) else answer, default=_plain, indent=2
            )
        )
    else:
        click.echo("\n".join(text(answer)))


def lines(answer: Any) -> Iterator[str]:
    """Yield the lines of a sentence, of a table of rows, or of one row.

    One row is a table of names and values, followed by the tables that it contains.
    """
    if isinstance(answer, str):
        yield answer
    elif isinstance(answer, Sequence):
        yield from table(answer) if answer else ["None found."]
    else:
        lists = {name: value for name, value in answer.items() if isinstance(value, list) and value}
        inner = {name: value for name, value in lists.items() if isinstance(value[0], Mapping)}
        yield from _aligned(
            [[name, _cell(value)] for name, value in answer.items() if name not in inner]
        )
        for name, rows in inner.items():
            yield from ["", f"{name}:", *table(rows)]


def columns(*names: str) -> Text:
    """Return a formatter for a table of these columns; JSON has all columns."""
    return lambda rows: lines([{name: row[name] for name in names} for row in rows])


def row_of(thing: object, *names: str) -> dict[str, Any]:
    """Return these attributes as a row."""
    return {name: getattr(thing, name) for name in names}


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a header, and a line for each row.

    There must be at least one row.
    """
    rows = list(rows)
    yield from _aligned(
        [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    )


def _aligned(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        )
        yield "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Return the width in columns of a terminal."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def _cell(value: Any) -> str:
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
        return ", ".join(f"{name} {_cell(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    text = value.value if isinstance(value, enum.Enum) else str(value)
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
