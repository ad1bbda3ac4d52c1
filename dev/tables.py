"""Write the tables of docs/settings.md and docs/api.md from the declarations in app/.

`make format` runs it.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from app.audit.events import ACTIONS, DETAILS, Action
from app.config import Config
from app.limits import limits
from app.settings.setting_types import Limit, Setting, collect_settings

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS / "settings.md", DOCS / "api.md"]
# A table stands between its mark and an empty line.
_TABLE = re.compile(
    r"(?<=^<!-- )(limits|settings: \w+|audit events: \w+) -->\n\n(?:\|.*\n)*", re.MULTILINE
)
_SETTINGS = collect_settings(Config)

Row = tuple[str, ...]


def fill_tables(page: str) -> str:
    """Return the page with a table below each mark."""
    return _TABLE.sub(lambda mark: f"{mark[1]} -->\n\n{_render_table(mark[1])}", page)


def _render_table(name: str) -> str:
    """Return a table of Markdown, with its columns aligned."""
    rows = list(_rows_of(name))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|\n"
    head, *lines = ("| " + " | ".join(map(str.ljust, row, widths)) + " |\n" for row in rows)
    return head + rule + "".join(lines)


def _rows_of(name: str) -> Iterator[Row]:
    """Yield the head of a table, and then its rows."""
    match name:
        case "limits":
            yield "limit of", "per", "at most", "setting", "counted", "beyond it"
            for limit in vars(limits).values():
                if isinstance(limit, Limit):
                    yield _render_limit(limit)
        case "audit events: actions":
            yield "action", "written when", "outcome", "details"
            yield from map(_render_action, ACTIONS.values())
        case "audit events: details":
            yield "detail", "type", "meaning"
            yield from map(_render_detail, DETAILS.items())
        case _:
            yield "variable", "value", "default", "meaning"
            for setting in _SETTINGS.values():
                if name == f"settings: {setting.group}":
                    yield _render_setting(setting)


def _render_setting(setting: Setting) -> Row:
    value = "text"
    if setting.parse is not str:
        first_line, *_ = (setting.parse.__doc__ or "").splitlines()
        value = first_line.removeprefix("Accept ").removesuffix(".").replace("|", r"\|")
    return (
        f"`{setting.variable}`",
        value,
        setting.unset or _describe_default(setting.default),
        setting.meaning,
    )


def _describe_default(default: Any) -> str:
    if default is MISSING:
        return "required"
    return "none" if default in {None, frozenset()} else f"`{default}`"


def _render_limit(limit: Limit) -> Row:
    setting, unset = "fixed", ""
    if isinstance(limit.most, str):
        declared = _SETTINGS[limit.most.rpartition(".")[2]]
        setting, unset = f"`{declared.variable}`", declared.unset
        limit = limit._replace(most=int(declared.default * limit.share))
    if limit.share < 1:
        setting = f"{limit.share:.0%} of {setting}"
    rate = f"{unset} {limit.period}" if unset else limit.rate
    if limit.burst > 1:
        rate += f", {limit.window[0]:,} at once"
    return limit.what, limit.per, rate, setting, limit.counted, _describe_refusal(limit)


def _describe_refusal(limit: Limit) -> str:
    if limit.patience == math.inf and limit.beyond == Limit._field_defaults["beyond"]:
        return "waits"
    if 0 < limit.patience < math.inf:
        return f"waits up to {limit.patience:g} s, then {limit.beyond}"
    return limit.beyond


def _render_action(action: Action[Any]) -> Row:
    details = []
    for name in action.schema["properties"]:
        required = name in action.schema["required"]
        details.append(f"`{name}`" if required else f"(`{name}`)")
    outcomes = ", ".join(f"`{outcome}`" for outcome in action.outcomes)
    return f"`{action}`", action.when, outcomes, ", ".join(details) or "none"


def _render_detail(detail: tuple[str, dict[str, Any]]) -> Row:
    name, schema = detail
    kind = schema["type"]
    return f"`{name}`", kind if isinstance(kind, str) else " or ".join(kind), schema["description"]


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(fill_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
