"""Write the table of limits in docs/api.md from app/limits/table.py.

`make format` runs it.
"""

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
    setting, most = "fixed", limit.rate
    if limit.setting:
        declared, default = _SETTINGS[limit.setting]
        setting = f"`{declared.variable}`"
        limit = limit._replace(amount=int(default * limit.share))
        most = f"{declared.unset} per {limit.period}" if declared.unset else limit.rate
    if limit.share < 1:
        setting = f"{limit.share:.0%} of {setting}"
    if limit.burst > 1:
        most += f", {limit.amount * limit.burst:,.0f} at once"
    beyond = limit.beyond
    if limit.patience:
        beyond = f"waits up to {limit.patience:g} s, then {beyond}"
    return limit.what, limit.per, most, setting, limit.counted, beyond


if __name__ == "__main__":
    PAGE.write_text(fill_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
