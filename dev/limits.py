"""Write the table of limits in docs/api.md from app/limits/table.py.

`make format` runs it.
"""

import math
import re
from pathlib import Path

from app.config import Config
from app.limits import table
from app.settings.declarations import Limit, collect_settings
from dev.settings import render_table

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
_TABLE = re.compile(r"(?<=<!-- limits -->\n\n)(?:\|.*\n)*")
_HEAD = ("limit of", "per", "at most", "setting", "counted", "beyond it")
_SETTINGS = collect_settings(Config)


def fill_table(page: str) -> str:
    """Return the page with the table of limits below its mark."""
    limits = [limit for limit in vars(table).values() if isinstance(limit, Limit)]
    return _TABLE.sub(render_table(_HEAD, [_render_row(limit) for limit in limits]), page)


def _render_row(limit: Limit) -> tuple[str, ...]:
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
    if limit.patience == math.inf:
        return "waits"
    if limit.patience:
        return f"waits up to {limit.patience:g} s, then {limit.beyond}"
    return limit.beyond


if __name__ == "__main__":
    PAGE.write_text(fill_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
