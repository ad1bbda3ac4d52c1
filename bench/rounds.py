"""Interleaved rounds: every server in turn, forward and then backward.

Drift therefore affects all servers alike. A machine's speed can change by a factor of two from
minute to minute, so absolute figures mean nothing. The result is the ratio of two servers within
one round: the median of the rounds' ratios, and their range.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import cpu
from bench.client import BenchError
from bench.load import CONNECTIONS, Question, Wrk
from bench.servers import Process


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and the range that they span."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Round:
    per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float  # CPU time of the server's processes for each request
    database_cpu_us: float  # the same of PostgreSQL's processes; 0 without PostgreSQL
    answered: int
    sent: int


@dataclass
class Contender:
    """A server, its requests in a round, and its rounds so far."""

    name: str
    server: Process
    questions: Callable[[], Sequence[Question]]
    once: bool = False  # no request is sent twice, ever
    connections: int = CONNECTIONS
    database: int | None = None  # PostgreSQL's first process, if this server uses it
    rounds: list[Round] = field(default_factory=list)

    def run(self, wrk: Wrk, seconds: int) -> Round:
        """Run one round.

        Raises BenchError for any answer that is not a 200.
        """
        questions = self.questions()
        own, database = self.server.pids(), cpu.family(self.database)
        before, database_before = cpu.seconds(own), cpu.seconds(database)
        answers = wrk.ask(
            self.server.port, questions, seconds, connections=self.connections, once=self.once
        )
        used, database_used = cpu.seconds(own) - before, cpu.seconds(database) - database_before
        if answers.refused or answers.lost or not answers.answered:
            raise BenchError(
                f"{self.name}: of {answers.answered} answers {answers.refused} were refusals;"
                f" {answers.lost} were lost."
            )
        return Round(
            per_second=answers.per_second,
            p50_us=answers.p50_us,
            p99_us=answers.p99_us,
            cpu_us=used / answers.answered * 1e6,
            database_cpu_us=database_used / answers.answered * 1e6,
            answered=answers.answered,
            sent=answers.sent,
        )

    def facts(self) -> dict[str, Any]:
        """Return the report's figures of this server."""
        return {
            "requests_per_second": _spread(self.rounds, "per_second"),
            "p50_ms": _spread(self.rounds, "p50_us", 1e-3),
            "p99_ms": _spread(self.rounds, "p99_us", 1e-3),
            "cpu_us_per_request": _spread(self.rounds, "cpu_us"),
            "database_cpu_us_per_request": _spread(self.rounds, "database_cpu_us"),
            "answers": sum(figures.answered for figures in self.rounds),
        }


def _spread(rounds: Sequence[Round], name: str, unit: float = 1) -> Spread:
    return Spread.of([getattr(figures, name) * unit for figures in rounds])


def interleave(wrk: Wrk, contenders: Sequence[Contender], *, rounds: int, seconds: int) -> None:
    for _ in range(rounds):
        for contender in contenders:
            contender.rounds.append(contender.run(wrk, seconds))
        contenders = contenders[::-1]


def facts_of(contenders: Sequence[Contender]) -> dict[str, Any]:
    """Return the report's figures of these servers, by their names."""
    return {contender.name: contender.facts() for contender in contenders}


def ratio(contender: Contender, other: Contender, measure: Callable[[Round], float]) -> Spread:
    """Return the ratios between the two servers' rounds, in the order of the rounds."""
    pairs = zip(contender.rounds, other.rounds, strict=True)
    return Spread.of([measure(mine) / measure(theirs) for mine, theirs in pairs])
