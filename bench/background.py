"""The effect of simultaneous onboarding and proofs on the speed of issuing.

A second Deputy on the same database stands for another machine of the deployment. It gets requests
for 50 new tenants and 50 proofs a second, at a fixed rate that does not depend on the answers. The
proofs are of the connections that the first Deputy issues for.

A proof is five calls to AWS, so this is most of a core's work. On a small machine issuing would be
slower only because it has less CPU. So each Deputy has one half of the cores, with its database
sessions and its load. The two share the database's tables, locks and log, and the disk under it, as
in production.

The results are the first Deputy's rate compared with its rate alone, the CPU time of its requests,
and the configuration's revocation counter. It must not change, because each change makes every
process reload its cache.
"""

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import psycopg

from bench import cpu
from bench.client import BenchError
from bench.hot import contender, warm
from bench.load import Wrk
from bench.population import KeyedConnection
from bench.rounds import Contender, Round, Spread, facts_of, interleave, ratio
from bench.servers import Deputy, InstantSts
from bench.stage import Stage
from dev.stack import end_process, end_with_parent

_A_SECOND = 50  # requests of each kind: onboarding and proofs
_HANDS = 24  # threads of each kind; enough that slow answers don't reduce the rate
# More than a tenant has connections. So simultaneous proofs are of different tenants, as in
# production.
_STRIDE = 11
_SETTLE_SECONDS = 1.0
# Encodes and decodes JSON, with as much memory and as many objects as a service under load.
_WORK = """
import json
things = {str(number): [number] * 5 for number in range(20_000)}
while True:
    things = json.loads(json.dumps(things))
"""
_NAME = "deputy-background"  # the second Deputy's name, also in the database


class Halves:
    """The machine's cores in two halves.

    Raises BenchError if there is only one core.
    """

    def __init__(self) -> None:
        self.all = sorted(os.sched_getaffinity(0))
        self.first, self.second = self.all[: len(self.all) // 2], self.all[len(self.all) // 2 :]
        if not self.first:
            raise BenchError("it takes two cores to see whether one load disturbs another")

    @contextlib.contextmanager
    def on(self, cores: list[int]) -> Iterator[None]:
        """Pin this thread, and the processes that it starts meanwhile, to these cores."""
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.all)

    def free(self, stage: Stage) -> None:
        """Let the stage's processes use all cores again."""
        running = [
            *stage.on_postgres.server.pids(),
            *stage.sts.pids(),
            *cpu.family(stage.postmaster),
        ]
        cpu.keep_on(self.all, running)


class Background:
    """Requests for onboarding and proofs, which are sent during a `with`."""

    def __init__(self, deputy: Deputy, places: list[KeyedConnection], cores: list[int]) -> None:
        self._deputy = deputy
        self._places = places
        self._cores = cores
        self._ended = threading.Event()
        self.done = {"tenants": 0, "proofs": 0, "refusals": 0}

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._threads = [
            threading.Thread(target=self._work, args=(kind, hand))
            for kind in ("tenants", "proofs")
            for hand in range(_HANDS)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _work(self, kind: str, hand: int) -> None:
        """Send requests on a fixed schedule. A late request does not delay the next one."""
        os.sched_setaffinity(0, self._cores)  # 0: this thread
        client = self._deputy.admin()
        number = hand
        while not self._ended.wait(
            max(0.0, self._began + number / _A_SECOND - time.perf_counter())
        ):
            if kind == "tenants":
                answer = client.ask("POST", "/v1/tenants", {"name": f"Newcomer {number}"})
            else:
                place = self._places[number * _STRIDE % len(self._places)]
                answer = client.ask("POST", f"{place.connection}/verify")
            self.done[kind if answer.status < 300 else "refusals"] += 1
            number += _HANDS
        client.close()


@dataclass(frozen=True)
class Neighbour:
    """The second Deputy and what it uses, on the other half of the cores."""

    deputy: Deputy
    sts: InstantSts
    halves: Halves


@dataclass
class Half(Contender):
    """Hot rounds on one half of the cores."""

    beside: Neighbour = field(kw_only=True)

    def run(self, wrk: Wrk, seconds: int) -> Round:
        self._separate()
        halves = self.beside.halves
        with halves.on(halves.first):
            return super().run(wrk, seconds)

    def _separate(self) -> None:
        """Pin the processes to their cores.

        It is called in each round, because the database starts and ends a process for each session.
        """
        beside, theirs = self.beside, _sessions(self.beside.deputy)
        cpu.keep_on(beside.halves.second, [*beside.deputy.pids(), *beside.sts.pids(), *theirs])
        own = {*self.server.pids(), *cpu.family(self.database)}
        cpu.keep_on(beside.halves.first, own.difference(theirs))


@dataclass
class Elsewhere(Half):
    """Hot rounds while the other half does work that shares only the machine with Deputy."""

    def run(self, wrk: Wrk, seconds: int) -> Round:
        halves = self.beside.halves
        with halves.on(halves.second):
            working = [_working() for _ in halves.second]
        try:
            time.sleep(_SETTLE_SECONDS)
            return super().run(wrk, seconds)
        finally:
            for process in working:
                end_process(process)


def _working() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _WORK]
    return subprocess.Popen(command, preexec_fn=end_with_parent)  # noqa: PLW1509  one C call


@dataclass
class Busy(Half):
    """Hot rounds with the background work on the other half. Its CPU use is recorded."""

    places: list[KeyedConnection] = field(kw_only=True)
    rates: dict[str, list[float]] = field(default_factory=dict)

    def run(self, wrk: Wrk, seconds: int) -> Round:
        with Background(self.beside.deputy, self.places, self.beside.halves.second) as background:
            time.sleep(_SETTLE_SECONDS)
            before, began = self._totals(background.done), time.perf_counter()
            figures = super().run(wrk, seconds)
            after, took = self._totals(background.done), time.perf_counter() - began
        for name, total in after.items():
            self.rates.setdefault(name, []).append((total - before[name]) / took)
        return figures

    def _totals(self, done: dict[str, int]) -> dict[str, float]:
        """Return the requests and the CPU seconds so far, under the names of their rates."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "tenants a second": done["tenants"],
            "proofs a second": done["proofs"],
            "refusals a second": done["refusals"],
            "cores for the second Deputy": cpu.seconds(self.beside.deputy.pids()),
            "cores for its database sessions": cpu.seconds(_sessions(self.beside.deputy)),
            "cores for its STS": cpu.seconds(self.beside.sts.pids()),
            "cores for asking it": own.ru_utime + own.ru_stime,
        }


def measure(stage: Stage) -> None:
    hot, halves = stage.on_postgres, Halves()
    with hot.server.twin(_NAME, {"PGAPPNAME": _NAME}) as other:
        beside = Neighbour(other, stage.sts, halves)
        alone = Half("alone", hot.server, hot.hot, database=hot.database, beside=beside)
        elsewhere = Elsewhere(
            "beside other work", hot.server, hot.hot, database=hot.database, beside=beside
        )
        busy = Busy(
            "beside it",
            hot.server,
            hot.hot,
            database=hot.database,
            beside=beside,
            places=hot.places,
        )
        warm(stage, contender("alone", hot))
        busy.run(stage.wrk, 1)
        busy.rates.clear()
        counter, scale = counter_of(hot.server), stage.scale
        stage.say(
            f"background: {scale.rounds} rounds alone, beside {_A_SECOND} tenants and proofs a"
            " second, and other work"
        )
        try:
            contenders = (alone, busy, elsewhere)
            interleave(stage.wrk, contenders, rounds=scale.rounds, seconds=scale.seconds)
        finally:
            halves.free(stage)
        moved = counter_of(hot.server) - counter
    work = f"{_A_SECOND} new tenants and {_A_SECOND} proofs a second"
    stage.findings.facts[f"hot beside {work}, each on its half of the cores"] = {
        "moves of the configuration's revocation counter": moved,
        "beside it / beside other work": _compared(busy, elsewhere),
        "beside it / alone": _compared(busy, alone),
        "beside other work / alone": _compared(elsewhere, alone),
        **{name: Spread.of(values) for name, values in busy.rates.items()},
        **facts_of(contenders),
    }


def _compared(contender: Contender, other: Contender) -> dict[str, Spread]:
    return {
        "requests a second": ratio(contender, other, lambda figures: figures.per_second),
        "CPU for each request": ratio(contender, other, lambda figures: figures.cpu_us),
        "p99": ratio(contender, other, lambda figures: figures.p99_us),
    }


def _sessions(deputy: Deputy) -> list[int]:
    """Return the database's processes that serve the second Deputy."""
    with psycopg.connect(deputy.database_url.replace("+psycopg", "")) as server:
        rows = server.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s", [_NAME]
        )
        return [pid for (pid,) in rows]


def counter_of(deputy: Deputy) -> int:
    """Return the configuration's revocation counter."""
    with psycopg.connect(deputy.database_url.replace("+psycopg", "")) as server:
        row = server.execute("SELECT revocation_counter FROM configuration").fetchone()
    return int(row[0]) if row else 0
