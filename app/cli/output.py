"""The output of commands: aligned tables, or JSON.

It uses no library: a library would be a dependency, and would need more lines of configuration than
this module has.
"""

import enum
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Any

import click

Row = dict[str, Any]
Text = Callable[[Any], Iterable[str]]


def show(answer: Any, text: Text, *, as_json: bool) -> None:
    """Print a command's result.

    `text` formats it as lines. An iterator is printed as it goes, in JSON one line for each row.
    """
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
                cells.append((name, _cell(value)))
        yield from _aligned(cells)
        for name, rows in tables:
            yield from ("", f"{name}:", *table(rows))


def columns(names: str) -> Text:
    """Return a formatter for a table of these columns. JSON has the other fields too."""
    return partial(table, names=names.split())


def row_of(thing: object, names: str) -> Row:
    """Return a row of attributes. `names`: their names, separated by spaces.

    `tenant.name` is the name of the thing's tenant, in the column `tenant`.
    """
    return {name.partition(".")[0]: attrgetter(name)(thing) for name in names.split()}


def table(rows: Sequence[Row], names: Sequence[str] = ()) -> Iterator[str]:
    """Yield a header, and a line for each row. `names`: the columns (default: all)."""
    if rows:
        names = names or [*rows[0]]
        yield from _aligned([names, *(_cells(row, names) for row in rows)])
    else:
        yield "None found."


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    return [_cell(row[name]) for name in names]


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
