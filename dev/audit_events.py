"""Write the tables of audit events in docs/api.md from app/audit/actions.py.

`make format` runs it.
"""

import re
from pathlib import Path
from typing import Any

from app.audit.actions import ACTIONS, DETAILS
from app.audit.events import Action
from dev.settings import render_table

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
# A table stands between its mark and an empty line.
_TABLE = re.compile(r"(?<=^<!-- audit events: )(\w+) -->\n\n(?:\|.*\n)*", re.MULTILINE)


def fill_tables(page: str) -> str:
    """Return the page with the tables of actions and of their details below their marks."""
    actions = [_render_action(action) for action in ACTIONS.values()]
    details = [_render_detail(name, schema) for name, schema in DETAILS.items()]
    tables = {
        "actions": render_table(("action", "written when", "outcome", "details"), actions),
        "details": render_table(("detail", "type", "meaning"), details),
    }
    return _TABLE.sub(lambda mark: f"{mark[1]} -->\n\n{tables[mark[1]]}", page)


def _render_action(action: Action[Any]) -> tuple[str, ...]:
    outcomes = ", ".join(f"`{outcome}`" for outcome in action.outcomes)
    details = ", ".join(
        f"`{name}`" if name in action.schema["required"] else f"(`{name}`)"
        for name in action.schema["properties"]
    )
    return f"`{action}`", action.when, outcomes, details or "none"


def _render_detail(name: str, schema: dict[str, Any]) -> tuple[str, ...]:
    kind = schema["type"]
    return f"`{name}`", kind if isinstance(kind, str) else " or ".join(kind), schema["description"]


if __name__ == "__main__":
    PAGE.write_text(fill_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
