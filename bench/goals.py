"""The goals: each measure, and its levels "must", "target" and "moonshot"."""

import enum
from dataclasses import dataclass, field
from typing import Any

from bench.rounds import Spread

Steps = tuple[float, float, float]


class Level(enum.IntEnum):
    MISSED = 0
    MUST = 1
    TARGET = 2
    MOONSHOT = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Result:
    """A row's result as text, the level that it reaches, and its numbers."""

    row: int
    measured: str
    reached: Level
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal, which is one row of the report's table.

    `steps` has must, target and moonshot for each of its measures. `words` replaces it if there are
    no numbers. Rising steps mean that more is better.
    """

    row: int
    title: str
    steps: tuple[Steps, ...] = ()
    unit: str = ""
    words: tuple[str, str, str] = ("", "", "")

    def step(self, level: Level) -> str:
        """Return the value that a level requires, as text."""
        numbers = " · ".join(f"{steps[level - 1]:g}{self.unit}" for steps in self.steps)
        return numbers or self.words[level - 1]

    def judge(self, measured: str, *figures: float, values: dict[str, Any]) -> Result:
        """Return the highest level that all figures reach. Each measure has one figure."""
        each = [
            self._level(figure, steps) for figure, steps in zip(figures, self.steps, strict=True)
        ]
        return Result(self.row, measured, min(each), values)

    def _level(self, figure: float, steps: Steps) -> Level:
        if steps[0] < steps[-1]:
            return Level(sum(figure >= step for step in steps))
        return Level(sum(figure <= step for step in steps))


HOT = Goal(1, "hot issue / bare Flask, requests a second", ((0.8, 0.95, 1.05),))
HOT_P99 = Goal(2, "its p99 / bare Flask's p99", ((1.5, 1.0, 0.2),))
HOT_PEER = Goal(4, "hot issue / metadataproxy hot", ((0.9, 1.1, 1.2),))
COLD = Goal(5, "cold issue (one STS call each) / metadataproxy cold", ((1.0, 1.2, 2.0),))
HONESTY = Goal(6, "served after a revoke · answered without an audit row", ((0, 0, 0), (0, 0, 0)))
BURST = Goal(
    7, "STS calls for 48 cold requests at once", words=("1 a process", "1 a machine", "1 a fleet")
)
GROWTH = Goal(
    8, "lookup at 1M / at 1k · page at 99 % / first page", ((1.5, 1.3, 1.1), (1.5, 1.2, 1.05))
)
MEMORY = Goal(9, "memory of a cached credential", ((4, 2, 1.5),), unit=" kB")
ORGANIZATION = Goal(
    10, "accounts lost or twice · STS calls a second / budget", ((0, 0, 0), (1, 1, 1))
)
REVOKES = Goal(
    11,
    "hot issue beside 24 connections that make and revoke keys / alone: median · worst 3 s ·"
    " longest wait, seconds",
    ((0.5, 0.7, 0.9), (0.3, 0.5, 0.7), (2, 0.5, 0.2)),
)
HOSTILE = Goal(
    12,
    "hot issue beside hostile bodies · beside 600 sockets / alone",
    ((0.5, 0.8, 0.95), (0.5, 0.9, 1)),
)
ROUTINE = Goal(13, "STS calls of the broker for a routine proof", ((3, 3, 3),))
FLEET = Goal(
    14,
    "1M connections: hours for one round at 500 calls/s · MB of the worker",
    ((3, 1.7, 1.7), (300, 200, 150)),
)
DRIFT = Goal(15, "60,000 connections: hours until a loosened role is found, p99", ((2, 1, 1),))
AGAINST = Goal(16, "hot issue / the same at the commit --against", ((0.95, 0.98, 1),))
READINESS = Goal(18, "STS calls of 80 that ask for readiness / one a process in 5 s", ((1, 1, 1),))
PATIENCE = Goal(
    19,
    "longest wait when AWS hangs · when the database does",
    ((2, 1.9, 1.85), (2, 1.9, 1.85)),
    unit=" s",
)
RETENTION = Goal(20, "hot issue beside housekeeping / alone", ((0.9, 0.95, 1),))
COSTLY = Goal(
    21,
    "hot issue beside another tenant's costliest requests, or 64 connections that ask for"
    " credentials in vain / alone: median · worst 3 s",
    ((0.5, 0.7, 0.9), (0.3, 0.5, 0.7)),
)
CPU = Goal(
    22,
    "CPU of the costliest request · of a due connection · of reading a trust policy of 8,192"
    " characters",
    ((50, 20, 10), (100, 50, 20), (50, 20, 5)),
    unit=" ms",
)
STOPS = Goal(23, "longest stop beside 60 writers of what is stopped", ((2, 0.5, 0.2),), unit=" s")
WEBHOOKS = Goal(
    24,
    "deliveries of one background worker / a loop of `requests.post` · p99 until the first attempt,"
    " seconds",
    ((0.3, 0.5, 0.8), (3, 2, 1)),
)
GOALS = (
    HOT,
    HOT_P99,
    HOT_PEER,
    COLD,
    HONESTY,
    BURST,
    GROWTH,
    MEMORY,
    ORGANIZATION,
    REVOKES,
    HOSTILE,
    ROUTINE,
    FLEET,
    DRIFT,
    AGAINST,
    READINESS,
    PATIENCE,
    RETENTION,
    COSTLY,
    CPU,
    STOPS,
    WEBHOOKS,
)


def shown(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"


@dataclass(slots=True)
class Findings:
    """The results of a run: the rows, the facts behind them, and the measurements that failed."""

    results: list[Result] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
