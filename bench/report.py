"""The bench's report: the table of goals, the details, the JSON, and every missed "must"."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.goals import GOALS, Findings, Goal, Level, Result
from bench.rounds import Spread

_WIDTHS = (2, 66, 37, 11, 11, 11)
_STEPS = (Level.MUST, Level.TARGET, Level.MOONSHOT)


def table(results: Sequence[Result]) -> str:
    """Format one line for each goal, also for those that were not measured."""
    results_by_row = {result.row: result for result in results}
    lines = [_line("#", "what", "measured (range)", "must", "target", "moonshot", "reached")]
    lines.append("-" * (len(lines[0]) + 2))
    for goal in GOALS:
        measured, reached = "not measured", ""
        if result := results_by_row.get(goal.row):
            measured, reached = result.measured, _reached(result.reached)
        lines.append(_line(str(goal.row), goal.title, measured, *map(goal.step, _STEPS), reached))
    return "\n".join(lines)


def missed(results: Sequence[Result]) -> list[int]:
    """Return the rows whose "must" was missed."""
    return sorted(result.row for result in results if result.reached is Level.MISSED)


def details(facts: dict[str, Any], depth: int = 0) -> str:
    """Format the other measurements, one fact a line."""
    lead, lines = "  " * depth, []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{lead}{name}", details(value, depth + 1)]
        else:
            lines.append(f"{lead}{name:<{44 - len(lead)}} {_number(value)}")
    return "\n".join(lines)


def write(path: Path, about: dict[str, Any], findings: Findings) -> None:
    """Write the results as JSON. `about` describes the machine and the run."""
    results_by_row = {result.row: result for result in findings.results}
    rows = [_as_json(goal, results_by_row.get(goal.row)) for goal in GOALS]
    document = about | {"rows": rows, "failures": findings.failures, "details": findings.facts}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, default=_plain) + "\n")


def _line(*cells: str) -> str:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=False)]
    return " ".join([*padded, *cells[len(_WIDTHS) :]]).rstrip()


def _reached(level: Level) -> str:
    return "MISSED" if level is Level.MISSED else str(level)


def _as_json(goal: Goal, result: Result | None) -> dict[str, Any]:
    row: dict[str, Any] = {"row": goal.row, "what": goal.title}
    row |= {str(level): goal.step(level) for level in _STEPS}
    if result is None:
        return row | {"measured": None, "reached": None}
    return row | {
        "measured": result.measured,
        "reached": str(result.reached),
        "values": result.values,
    }


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value)


def _number(value: Any) -> str:
    if isinstance(value, Spread):
        return f"{_number(value.median)} ({_number(value.low)}-{_number(value.high)})"
    if isinstance(value, float) and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
