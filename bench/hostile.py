"""Rows 11 and 12: what a victim is issued beside another tenant's hostile requests.

Row 11: 24 connections make keys and revoke them without a pause, each of which moves the epoch. Row 12: hostile bodies,
and sockets that send no body.

The hostile bodies are of the size that is taken, 256 KiB, and full of what costs most to read, over eight connections
that ask again as soon as they are answered. The sockets, 600 at a time, send the header of a request that is
allowed, with a good key, and nothing else; each that ends is opened again. Both are sent by a process of their own.
On a machine of two cores that process takes some of what the victim's requests would have had.
"""

import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass, field

from bench.goals import HOSTILE, REVOKES, shown
from bench.hot import contender, warm
from bench.load import Wrk
from bench.rounds import Contender, Round, interleave, ratio
from bench.stage import Stage
from dev.stack import ROOT, end_process, end_with_parent

_SETTLE_SECONDS = 4.0  # until 600 sockets are accepted, and their keys read, on a busy machine too


@dataclass
class Beside(Contender):
    """Hot rounds beside a process that is told where to send, and with which key."""

    attack: str = field(kw_only=True)
    key: str = field(kw_only=True)

    def run(self, wrk: Wrk, seconds: int) -> Round:
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
            return super().run(wrk, seconds)
        finally:
            end_process(attacker)


def _strangers_key(stage: Stage) -> str:
    """A key that makes keys, of a tenant that has nothing else to do with the victims."""
    with contextlib.closing(stage.on_postgres.server.admin()) as admin:
        tenant = admin.must("POST", "/v1/tenants", {"name": "Hostile"}, expect=201)
        wanted = {"name": "hostile", "scopes": ["keys:write"], "tenant_id": tenant["id"]}
        key: str = admin.must("POST", "/v1/api-keys", wanted, expect=201)["key"]
        return key


def measure(stage: Stage) -> None:
    hot = stage.on_postgres
    alone = contender("alone", hot)
    key = _strangers_key(stage)
    beside = {
        attack: Beside(
            f"beside {attack}",
            hot.server,
            hot.hot,
            database=hot.database,
            attack=attack,
            key=key,
        )
        for attack in ("revokes", "bodies", "sockets")
    }
    warm(stage, alone)
    scale = stage.scale
    stage.say(f"hostile: {scale.rounds} rounds alone, beside revocations, hostile bodies, and sockets without one")
    interleave(stage.wrk, (alone, *beside.values()), rounds=scale.rounds, seconds=scale.seconds)
    revokes, *found = [ratio(one, alone, lambda each: each.per_second) for one in beside.values()]
    stage.found.results.append(REVOKES.judge(shown(revokes), revokes.median, values={"revokes": revokes}))
    stage.found.facts["hot beside hostile requests"] = {one.name: one.facts() for one in (alone, *beside.values())}
    stage.found.results.append(
        HOSTILE.judge(
            " · ".join(map(shown, found)),
            *(one.median for one in found),
            values=dict(zip(("bodies", "sockets"), found, strict=True)),
        )
    )
