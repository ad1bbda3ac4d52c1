"""Row 12: what a victim is issued beside another tenant's hostile bodies and idle sockets, compared
with alone.

The hostile bodies are of the size that is taken, 256 KiB, and full of what costs most to read, over
eight connections that ask again as soon as they are answered. The sockets, 600 at a time, send the
header of a request that is allowed, with a good key, and nothing else; each that ends is opened
again.

What is measured is what the attack costs the service, and not what sending it costs. So a Deputy of
its own and the database have one half of the cores, with a web process for each of them, and all
that sends has the other: wrk for the victim, alone as beside the attack, and a process for the
attack. It has gone on for some seconds before a round begins, so that what a tenant may do at once,
now and then, is used up.
"""

import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench import cpu
from bench.background import Halves, epoch_of
from bench.goals import HOSTILE, shown
from bench.hot import warm
from bench.load import Wrk
from bench.rounds import Contender, Round, Spread, interleave, ratio
from bench.servers import Deputy
from bench.stage import Stage
from dev.stack import ROOT, end_process, end_with_parent

# Until what may come at once is used up; 600 sockets are accepted, and their keys read, by then
# too.
_SETTLE_SECONDS = 6.0
_REST_SECONDS = 2.0  # until what an attack has left behind is done: requests are held for a second


@dataclass
class Beside(Contender):
    """Hot rounds of a Deputy on one half of the cores, beside an attack with this key. What
    sends has the other half.
    """

    server: Deputy
    halves: Halves = field(kw_only=True)
    key: str = field(kw_only=True)
    attack: str | None = field(default=None, kw_only=True)
    moves: list[float] = field(default_factory=list)  # of the epoch, in a second of each round

    def run(self, wrk: Wrk, seconds: int) -> Round:
        database = cpu.family(self.database) if self.database else []
        cpu.keep_on(self.halves.one, [*self.server.pids(), *database])
        with self.halves.on(self.halves.other), self._attacked():
            epoch, began = epoch_of(self.server), time.perf_counter()
            found = super().run(wrk, seconds)
            self.moves.append((epoch_of(self.server) - epoch) / (time.perf_counter() - began))
            return found

    @contextlib.contextmanager
    def _attacked(self) -> Iterator[None]:
        if self.attack is None:
            time.sleep(_REST_SECONDS)
            yield
            return
        command = [sys.executable, "-m", "bench.hostile_load", self.attack, str(self.server.port)]
        attacker = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            preexec_fn=end_with_parent,  # noqa: PLW1509  one C call
        )
        try:
            if attacker.stdin is not None:
                attacker.stdin.write(f"{self.key}\n".encode())
                attacker.stdin.close()
            time.sleep(_SETTLE_SECONDS)
            yield
        finally:
            end_process(attacker)


def _strangers_key(stage: Stage) -> str:
    """A key that makes keys, of a tenant that has nothing else to do with the victims."""
    with contextlib.closing(stage.on_postgres.server.admin()) as admin:
        tenant = admin.must("POST", "/v1/tenants", {"name": "Hostile"}, expect=201)
        wanted = {"name": "hostile", "scopes": ["keys:write"], "tenant_id": tenant["id"]}
        key: str = admin.must("POST", "/v1/api-keys", wanted, expect=201)["key"]
        return key


def _beside(stage: Stage, *attacks: str) -> list[Spread]:
    """What is served beside each of the attacks / alone."""
    halves, key = Halves(), _strangers_key(stage)
    with stage.on_postgres.server.twin(
        "deputy-half", {"GUNICORN_CMD_ARGS": f"--workers {len(halves.one)}"}
    ) as deputy:
        one = functools.partial(
            Beside,
            server=deputy,
            questions=stage.on_postgres.hot,
            database=stage.postmaster,
            halves=halves,
            key=key,
        )
        alone, *beside = (
            one("alone"),
            *(one(f"beside {attack}", attack=attack) for attack in attacks),
        )
        try:
            warm(stage, alone)
            stage.say(
                f"hostile: {stage.scale.rounds} rounds alone, and beside {' and '.join(attacks)}"
            )
            interleave(
                stage.wrk, (alone, *beside), rounds=stage.scale.rounds, seconds=stage.scale.seconds
            )
        finally:
            halves.free(stage)
    stage.found.facts[f"hot beside hostile {' and '.join(attacks)}"] = {
        each.name: each.facts() | {"moves of the epoch a second": Spread.of(each.moves)}
        for each in (alone, *beside)
    }
    return [ratio(each, alone, lambda found: found.per_second) for each in beside]


def measure(stage: Stage) -> None:
    """Row 12."""
    bodies, sockets = _beside(stage, "bodies", "sockets")
    values = {"bodies": bodies, "sockets": sockets}
    measured = f"{shown(bodies)} · {shown(sockets)}"
    stage.found.results.append(
        HOSTILE.judge(measured, bodies.median, sockets.median, values=values)
    )
