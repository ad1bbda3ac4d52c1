"""`make bench`: measures Deputy beside bare Flask and metadataproxy, and compares with the goals.

It starts everything that it needs on this machine, and sends load only to 127.0.0.1. It leaves only
.bench/ behind (the peer's environment, logs, and last.json). A full run takes about 25 minutes on
two cores. Close other programs: the figures are ratios within interleaved rounds, but a busy
machine widens their range.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import (
    background,
    burst,
    cold,
    costly,
    drift,
    extras,
    fleet,
    growth,
    honesty,
    hostile,
    hot,
    instructions,
    memory,
    neighbour,
    organization,
    patience,
    readiness,
    report,
    retention,
    stops,
    webhooks,
)
from bench.client import BenchError
from bench.servers import HOME
from bench.stage import Scale, Stage

# Measurements run in this order. One that disturbs others comes after them.
SECTIONS: dict[str, tuple[Callable[[Stage], None], str]] = {
    "hot": (hot.measure, "rows 1-4: cached credentials, beside bare Flask and metadataproxy"),
    "cold": (cold.measure, "row 5: one STS call for each answer"),
    "instructions": (
        instructions.measure,
        "instructions of one hot request; repeats to 0.1 %; only when asked for",
    ),
    "background": (background.measure, "hot rounds beside 50 new tenants and 50 proofs a second"),
    "retention": (
        retention.measure,
        "row 20: issuing while housekeeping takes old events out of the audit log",
    ),
    "revokes": (
        neighbour.revokes,
        "row 11: issuing beside another tenant that makes and revokes keys",
    ),
    "neighbour": (neighbour.costly, "row 21: issuing beside another tenant's costliest requests"),
    "hostile": (
        hostile.measure,
        "row 12: issuing beside another tenant's hostile bodies and sockets",
    ),
    "readiness": (readiness.measure, "row 18: STS calls for many that ask for readiness"),
    "stops": (stops.measure, "row 23: how long a stop takes beside 60 writers of what is stopped"),
    "webhooks": (webhooks.measure, "row 24: deliveries of webhooks, and their delay"),
    "costly": (
        costly.measure,
        "row 22: CPU time of the costliest requests, and of a due connection",
    ),
    "extras": (extras.measure, "what each part of a hot request costs"),
    "memory": (memory.measure, "row 9: memory of a cached credential"),
    "honesty": (honesty.measure, "row 6: revoking, and killing every web process, under load"),
    "patience": (
        patience.measure,
        "row 19: how long a request waits when AWS or the database hangs",
    ),
    "burst": (burst.measure, "row 7: STS calls for many cold requests at once"),
    "drift": (
        drift.measure,
        "row 15: how long a loosened trust policy goes unnoticed, on a simulated clock",
    ),
    "growth": (growth.measure, "row 8: a million connections, and the last page of a list"),
    "fleet": (
        fleet.measure,
        "rows 13 and 14: proving a million connections again; only when asked for",
    ),
    "organization": (
        organization.measure,
        "row 10: 200 and 1,000 accounts that register at once; only when asked for",
    ),
}
# Left out of a full run, which would take twice as long with them.
_WHEN_ASKED = frozenset({"organization", "fleet", "instructions"})
_BUSY = 0.7  # load average from which on something else probably runs on the machine


def main() -> int:
    options = _parse()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_ctrl_c)
    try:
        with Stage(Scale.quick() if options.quick else Scale(), options.against) as stage:
            introduce(stage)
            for name in options.only:
                measure(stage, name)
            return conclude(stage, options.json)
    except BenchError as error:
        print(f"\nThe bench failed: {error}\nLogs: {HOME / 'logs'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def measure(stage: Stage, name: str) -> None:
    """Run one measurement. If it fails, the others still run."""
    try:
        section, _ = SECTIONS[name]
        section(stage)
    except BenchError as error:
        stage.say(f"{name} FAILED: {error}")
        stage.findings.failures[name] = str(error)


def introduce(stage: Stage) -> None:
    """Start what every measurement needs, so that a problem shows at once."""
    generator, facts = stage.wrk.name, stage.machine
    stage.say(f"{facts['cores']} cores of {facts['cpu']}, {facts['workers']}; load by {generator}")
    if facts["load_before"] > _BUSY:
        stage.say(
            f"something else runs on this machine (load {facts['load_before']:.1f}): expect wide"
            " ranges"
        )


def conclude(stage: Stage, also: Path | None) -> int:
    """Print and write the results, and return the exit status.

    It is 1 if a "must" was missed, 2 if a measurement failed.
    """
    findings = stage.findings
    for path in filter(None, (HOME / "last.json", also)):
        report.write(path, stage.about, findings)
    details = report.details(stage.about["machine"] | findings.facts)
    print(f"\n{details}\n\n{report.table(findings.results)}\n")
    for name, why in findings.failures.items():
        print(f"{name} failed: {why}\nLogs: {HOME / 'logs'}", file=sys.stderr)
    missed = report.missed(findings.results)
    if missed:
        print(f'Missed a "must": row {", ".join(map(str, missed))}.', file=sys.stderr)
    if findings.failures:
        return 2
    return 1 if missed else 0


def _parse() -> argparse.Namespace:
    lines = "\n".join(f"  {name:<12} {text}" for name, (_, text) in SECTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=(
            f'The measurements:\n{lines}\n\nThe exit status is 1 when a "must" is missed, 2 when a'
            " measurement failed."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        type=_sections,
        default=[name for name in SECTIONS if name not in _WHEN_ASKED],
        metavar="NAME,…",
        help="only these measurements",
    )
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help=(
            "build this commit beside the present one, and measure rows 1 (row 16) and 5 of both in"
            " turns"
        ),
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few and short rounds: to see that it works, not to measure",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        help="write the result here too, beside .bench/last.json",
    )
    return parser.parse_args()


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(
            f"there is no {', '.join(unknown)}; choose from {', '.join(SECTIONS)}"
        )
    return [name for name in SECTIONS if name in names]


def _as_ctrl_c(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
