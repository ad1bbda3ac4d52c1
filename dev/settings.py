"""Write the tables of docs/settings.md from the declarations in app/config.py.

`make format` runs it.
"""

import re
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from app.config import Config
from app.settings.declarations import Setting, collect_settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
# A table stands between its group's mark and an empty line.
_TABLE = re.compile(r"(?<=^<!-- settings: )(\w+) -->\n\n(?:\|.*\n)*", re.MULTILINE)
_HEAD = ("variable", "value", "default", "meaning")


def fill_tables(page: str) -> str:
    """Return the page with the table of each group that it marks."""
    return _TABLE.sub(lambda mark: f"{mark[1]} -->\n\n{_render_group(mark[1])}", page)


def _render_group(group: str) -> str:
    rows = [
        _render_row(setting)
        for setting in collect_settings(Config).values()
        if setting.group == group
    ]
    return render_table(_HEAD, rows)


def render_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table of Markdown, with its columns aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        _render_line(head, widths),
        "|" + "|".join("-" * (width + 2) for width in widths) + "|",
    ]
    return "".join(f"{line}\n" for line in (*lines, *(_render_line(row, widths) for row in rows)))


def _render_line(row: tuple[str, ...], widths: list[int]) -> str:
    return "| " + " | ".join(map(str.ljust, row, widths)) + " |"


def _render_row(setting: Setting) -> tuple[str, ...]:
    return (
        f"`{setting.variable}`",
        _describe_value(setting),
        setting.unset or _describe_default(setting.default),
        setting.meaning,
    )


def _describe_value(setting: Setting) -> str:
    """Return which texts the setting accepts, from the first line of its check's docstring."""
    if setting.parse is str:
        return "text"
    first_line, *_ = (setting.parse.__doc__ or "").splitlines()
    return first_line.removeprefix("Accept ").removesuffix(".").replace("|", r"\|")


def _describe_default(default: Any) -> str:
    if default is MISSING:
        return "required"
    return "none" if default in {None, frozenset()} else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(fill_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
