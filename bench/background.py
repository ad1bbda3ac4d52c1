"""Does issuing notice that tenants are onboarded and connections are proven again at the same time?

A second Deputy on the same database, as another machine of the same deployment, is given 50 new tenants and 50
proofs a second, at a fixed rate whatever comes back, of the very connections that the first one is issuing for.

On two cores both share them, and a proof is six calls to AWS: so much work takes more than there is, fewer requests
a second are served in any case, and the report says how much of the work was really done and what it used. Whether
the first Deputy noticed is seen elsewhere: in the configuration's epoch, which must not move, since each move makes
every process read its memory again; and in the CPU time that it spends on each of its own requests.
"""

import resource
import threading
import time
from dataclasses import dataclass, field
from typing import Self

import psycopg

from bench import cpu
from bench.hot import contender, warm
from bench.load import Wrk
from bench.population import Place
from bench.rounds import Contender, Round, Spread, interleave, ratio
from bench.servers import Deputy, InstantSts
from bench.stage import Stage

_A_SECOND = 50  # of each kind
_HANDS = 24  # of each kind; enough that a slow answer doesn't slow the rate
_SETTLE_SECONDS = 0.5


class Background:
    """The work, for as long as the `with` lasts."""

    def __init__(self, deputy: Deputy, places: list[Place]) -> None:
        self._deputy = deputy
        self._places = places
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
        """Every hand has its own times to start at, and takes none back when it is late."""
        client = self._deputy.admin()
        turn = hand
        while not self._ended.wait(max(0.0, self._began + turn / _A_SECOND - time.perf_counter())):
            if kind == "tenants":
                answer = client.ask("POST", "/v1/tenants", {"name": f"Newcomer {turn}"})
            else:
                answer = client.ask("POST", f"{self._places[turn % len(self._places)].connection}/verify")
            self.done[kind if answer.status < 300 else "refusals"] += 1
            turn += _HANDS
        client.close()


@dataclass
class Busy(Contender):
    """Hot rounds with the background at work; what that used is kept for the report."""

    other: Deputy = field(kw_only=True)
    places: list[Place] = field(kw_only=True)
    sts: InstantSts = field(kw_only=True)
    rates: list[dict[str, float]] = field(default_factory=list)

    def run(self, wrk: Wrk, seconds: int) -> Round:
        with Background(self.other, self.places) as background:
            time.sleep(_SETTLE_SECONDS)
            before, began, done = self._used(), time.perf_counter(), dict(background.done)
            found = super().run(wrk, seconds)
            after, took = self._used(), time.perf_counter() - began
            rates = {f"{kind} a second": (background.done[kind] - done[kind]) / took for kind in done}
        self.rates.append(
            rates | {f"cores for {name}": (after[name] - before[name]) / took for name in after}
        )
        return found

    def _used(self) -> dict[str, float]:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "the second Deputy": cpu.seconds(self.other.pids()),
            "its STS": cpu.seconds(self.sts.pids()),
            "asking it": own.ru_utime + own.ru_stime,
            "PostgreSQL, for both": cpu.seconds(cpu.family(self.database) if self.database else []),
        }


def measure(stage: Stage) -> None:
    hot = stage.on_postgres
    alone = contender("alone", hot)
    with hot.server.twin("deputy-background") as other:
        busy = Busy(
            "beside it",
            hot.server,
            hot.hot,
            database=hot.database,
            other=other,
            places=hot.places,
            sts=stage.sts,
        )
        warm(stage, alone)
        busy.run(stage.wrk, 1)
        busy.rates.clear()
        scale, epoch = stage.scale, _epoch(hot.server)
        stage.say(
            f"background: {scale.rounds} rounds with and without {_A_SECOND} tenants and proofs a second"
        )
        interleave(stage.wrk, (alone, busy), rounds=scale.rounds, seconds=scale.seconds)
    moved = _epoch(hot.server) - epoch
    stage.found.facts[
        f"hot beside {_A_SECOND} new tenants and {_A_SECOND} proofs a second, by a second Deputy"
    ] = {
        "moves of the configuration's epoch": moved,
        "requests a second / alone": ratio(busy, alone, lambda one: one.per_second),
        "CPU for each request / alone": ratio(busy, alone, lambda one: one.cpu_us),
        "p99 / alone": ratio(busy, alone, lambda one: one.p99_us),
        **{name: Spread.of([one[name] for one in busy.rates]) for name in busy.rates[0]},
        "alone": alone.facts(),
        "beside it": busy.facts(),
    }


def _epoch(deputy: Deputy) -> int:
    with psycopg.connect(deputy.database_url.replace("+psycopg", "")) as server:
        row = server.execute("SELECT epoch FROM configuration").fetchone()
    return int(row[0]) if row else 0
