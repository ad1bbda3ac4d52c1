"""Row 12: a victim's rate while another tenant sends hostile bodies or keeps sockets idle.

The hostile bodies have the largest accepted size, 256 KiB, and contents that are costly to parse.
Each of eight connections sends them one after the other, to a route that counts against the
tenant's share and to the one for credentials, whole and in chunks. The sockets, 600 at a time, send
only the header of an allowed request with a good key. A socket that is closed is opened again.

The rate is compared with the victim's rate alone. The cost of sending the attack must not count. So
a separate Deputy and the database have one half of the cores, with a web process for each core. The
other half runs wrk for the victim, in all rounds, and a process for the attack. The attack runs for
some seconds before a round begins, so that the tenant's burst is used up.
"""

import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench import cpu
from bench.background import Halves, counter_of
from bench.goals import HOSTILE, shown
from bench.hot import warm
from bench.load import Wrk
from bench.rounds import Contender, Round, Spread, facts_of, interleave, ratio
from bench.servers import Deputy
from bench.stage import Stage
from dev.stack import ROOT, end_process, end_with_parent

# Until the burst is used up, 600 sockets are accepted, and their keys are read.
_SETTLE_SECONDS = 6.0
_REST_SECONDS = 2.0  # until an attack's last requests are answered, which are delayed by a second


@dataclass
class Beside(Contender):
    """Hot rounds of a Deputy on one half of the cores, beside an attack with this key.

    wrk and the attack have the other half.
    """

    server: Deputy
    halves: Halves = field(kw_only=True)
    key: str = field(kw_only=True)
    attack: str | None = field(default=None, kw_only=True)
    moves: list[float] = field(default_factory=list)  # changes of the revocation counter per second

    def run(self, wrk: Wrk, seconds: int) -> Round:
        cpu.keep_on(self.halves.first, [*self.server.pids(), *cpu.family(self.database)])
        with self.halves.on(self.halves.second), self._attacked():
            counter, began = counter_of(self.server), time.perf_counter()
            figures = super().run(wrk, seconds)
            self.moves.append((counter_of(self.server) - counter) / (time.perf_counter() - began))
            return figures

    def facts(self) -> dict[str, Any]:
        moves = Spread.of(self.moves)
        return super().facts() | {"moves of the revocation counter a second": moves}

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
    """Return a key that creates keys, of a tenant that is unrelated to the victims."""
    with contextlib.closing(stage.on_postgres.server.admin()) as admin:
        tenant = admin.must("POST", "/v1/tenants", {"name": "Hostile"}, expect=201)
        body = {
            "name": "hostile",
            "scopes": ["keys:write", "credentials:issue"],
            "tenant_id": tenant["id"],
        }
        key: str = admin.must("POST", "/v1/api-keys", body, expect=201)["key"]
        return key


def _beside(stage: Stage, *attacks: str) -> list[Spread]:
    """Return the rate under each of the attacks, divided by the rate without one."""
    halves, key = Halves(), _strangers_key(stage)
    with stage.on_postgres.server.twin(
        "deputy-half", {"GUNICORN_CMD_ARGS": f"--workers {len(halves.first)}"}
    ) as deputy:
        contender = functools.partial(
            Beside,
            server=deputy,
            questions=stage.on_postgres.hot,
            database=stage.postmaster,
            halves=halves,
            key=key,
        )
        alone = contender("alone")
        beside = [contender(f"beside {attack}", attack=attack) for attack in attacks]
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
    stage.findings.facts[f"hot beside hostile {' and '.join(attacks)}"] = facts_of((alone, *beside))
    return [ratio(each, alone, lambda figures: figures.per_second) for each in beside]


def measure(stage: Stage) -> None:
    """Measure row 12."""
    bodies, sockets = _beside(stage, "bodies", "sockets")
    values = {"bodies": bodies, "sockets": sockets}
    measured = f"{shown(bodies)} · {shown(sockets)}"
    stage.findings.results.append(
        HOSTILE.judge(measured, bodies.median, sockets.median, values=values)
    )
