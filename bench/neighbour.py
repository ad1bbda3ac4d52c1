"""Rows 11 and 21: a victim's rate while another tenant sends requests, on both databases.

The rate is compared with the victim's rate alone. Row 11: 24 connections create and revoke keys
without a pause, and each revocation invalidates cached rows.

Row 21: four connections repeat one of the costliest requests that a tenant may send. It is a list
of 200 connections, the onboarding page, or the proof of a role whose trust policy is slow to read.
Or 64 connections repeat a request for credentials, far beyond the limit of their key, or one that
is refused for its body.

The victim is timed from the first second of the attack, when the attacker's burst is unused. So
each round has a new tenant as the attacker. A Deputy of its own, with two web processes, and its
database have one half of the cores. The victim's client and the attack have the other half.
"""

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bench import cpu
from bench.background import Halves
from bench.client import Client
from bench.goals import COSTLY, REVOKES, Goal
from bench.hot import contender, warm
from bench.load import Timeline
from bench.population import role_arn, spread
from bench.servers import Deputy
from bench.slow_policies import SLOW_STATEMENTS
from bench.stage import Populated, Stage
from dev.stack import ROOT, end_process, end_with_parent

TENTH = 0.1  # seconds
_CONNECTIONS = 16  # the victim's
_WARM_SECONDS, _ALONE_SECONDS, _BESIDE_SECONDS = 4, 6, 12
_LISTED = 200
_ATTACKERS = {"list": 4, "page": 4, "verify": 4, "credentials": 64, "refused": 64}  # connections
_WORST = round(3 / TENTH)  # tenths of a second
_SETTINGS = {
    "GUNICORN_CMD_ARGS": "--workers 2",
    "DEPUTY_CONNECTION_RATE": "120",  # the default of this limit
    # The attack is refused beyond this rate. None of the victim's fifty keys reaches it.
    "DEPUTY_ISSUE_RATE": "100",
}


class Attack(NamedTuple):
    """The input of `bench.hostile_load`: its attack, the key, and the requests that it repeats."""

    name: str
    key: str
    requests: tuple[str, ...] = ()


def _median(timeline: Timeline) -> float:
    """Return the median number of answers in a second."""
    tenths = round(1 / TENTH)
    answered = timeline.answered
    return statistics.median(
        sum(answered[n : n + tenths]) for n in range(0, len(answered) - tenths + 1, tenths)
    )


def _worst(timeline: Timeline) -> float:
    """Return the number of answers a second in the worst three seconds."""
    answered = timeline.answered
    windows = (sum(answered[n : n + _WORST]) for n in range(len(answered) - _WORST + 1))
    return min(windows) / (_WORST * TENTH)


def revokes(stage: Stage) -> None:
    """Measure row 11."""
    _judge(stage, REVOKES, ["revokes"])


def costly(stage: Stage) -> None:
    """Measure row 21."""
    _judge(stage, COSTLY, list(_ATTACKERS))


def _judge(stage: Stage, goal: Goal, kinds: Sequence[str]) -> None:
    results = {}
    for kind in kinds:
        results[kind] = _beside(stage, stage.on_postgres, kind)
    stage.findings.facts[f"hot beside another tenant's {' and '.join(kinds)}"] = results

    def column(name: str) -> list[float]:
        return [result[name] for result in results.values()]

    figures = [min(column("median")), min(column("worst 3 s")), max(column("longest wait"))]
    figures = figures[: len(goal.steps)]
    text = " · ".join(f"{figure:.2f}" for figure in figures)
    stage.findings.results.append(goal.judge(text, *figures, values=results))


def _beside(stage: Stage, populated: Populated, kind: str) -> dict[str, float]:
    """Return the worst figures of several rounds."""
    halves, rounds = Halves(), max(1, stage.scale.rounds // 3)
    stage.say(f"{kind}: {rounds} rounds alone, and beside the attack from its first second")
    warm(stage, contender("Deputy", populated))
    with populated.server.twin("deputy-half", _SETTINGS) as deputy:
        try:
            _time(stage, deputy, populated, halves, None)  # caches most sessions
            refused = 0
            rates, medians, worst, worst_alone, longest = [], [], [], [], []
            for _ in range(rounds):
                alone = _time(stage, deputy, populated, halves, None)
                rate = _median(alone)
                attack = _attack(stage, populated, kind)
                beside = _time(stage, deputy, populated, halves, attack)
                rates.append(rate)
                medians.append(_median(beside) / rate)
                worst.append(_worst(beside) / rate)
                worst_alone.append(_worst(alone) / rate)
                longest.append(beside.longest)
                refused += beside.refused
        finally:
            halves.free(stage)
    return {
        "alone a second": statistics.median(rates),
        "median": statistics.median(medians),
        "worst 3 s": min(worst),
        "worst 3 s alone": min(worst_alone),  # how much the machine itself varies
        "longest wait": max(longest),
        "refused": refused,
    }


def _time(
    stage: Stage, deputy: Deputy, populated: Populated, halves: Halves, attack: Attack | None
) -> Timeline:
    name, seconds = "alone", _ALONE_SECONDS
    if attack:
        name, seconds = attack.name, _BESIDE_SECONDS
    cpu.keep_on(halves.first, [*deputy.pids(), *cpu.family(populated.database)])
    with halves.on(halves.second):
        # During this load the last attack's requests end, and both processes cache the victim's
        # sessions again.
        stage.wrk.watch(deputy.port, populated.hot(), _WARM_SECONDS, _CONNECTIONS)
        with attacked(deputy, attack):
            timeline = stage.wrk.watch(deputy.port, populated.hot(), seconds, _CONNECTIONS)
    stage.say(f"  {name}: {_median(timeline):.0f} a second")
    return timeline


@contextlib.contextmanager
def attacked(deputy: Deputy, attack: Attack | None) -> Iterator[None]:
    if attack is None:
        yield
        return
    command = [sys.executable, "-m", "bench.hostile_load", attack.name, str(deputy.port)]
    attacker = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        preexec_fn=end_with_parent,  # noqa: PLW1509  one C call
    )
    try:
        if attacker.stdin is not None:
            attacker.stdin.write("\n".join((attack.key, *attack.requests)).encode())
            attacker.stdin.close()
        yield
    finally:
        end_process(attacker)


def _attack(stage: Stage, populated: Populated, kind: str) -> Attack:
    with contextlib.closing(populated.server.admin()) as admin:
        tenant = admin.must("POST", "/v1/tenants", {"name": "Hostile"}, expect=201)
        key = _key(admin, tenant["id"])
        if kind == "revokes":
            return Attack("revokes", key)
        request = _REQUESTS[kind](stage, populated, admin, tenant)
        return Attack("repeat", key, (request,) * _ATTACKERS[kind])


def _key(admin: Client, tenant_id: str) -> str:
    scopes = ["keys:write", "connections:read", "connections:write", "credentials:issue"]
    body = {"name": "hostile", "scopes": scopes, "tenant_id": tenant_id}
    key: str = admin.must("POST", "/v1/api-keys", body, expect=201)["key"]
    return key


def _list(stage: Stage, populated: Populated, _admin: Client, tenant: dict[str, Any]) -> str:
    arns = [role_arn(tenant["id"], place) for place in range(_LISTED)]
    stage.sts.register(dict.fromkeys(arns, tenant["external_id"]))
    path = f"/v1/tenants/{tenant['id']}/connections"

    def connect(client: Client, arn: str) -> None:
        client.must("POST", path, {"role_arn": arn}, expect=201)

    spread(connect, arns, populated.server.admin)
    return f"GET {path}?limit={_LISTED}"


def _page(_stage: Stage, _populated: Populated, admin: Client, tenant: dict[str, Any]) -> str:
    link = admin.must("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)
    return f"HEAD /{link['url'].split('/', 3)[3]}"


def _verify(stage: Stage, _populated: Populated, admin: Client, tenant: dict[str, Any]) -> str:
    stage.sts.deny(role_arn(tenant["id"], 0), SLOW_STATEMENTS[0])
    return f"POST {_connected(stage, admin, tenant)}/verify"


def _credentials(stage: Stage, _populated: Populated, admin: Client, tenant: dict[str, Any]) -> str:
    return f"POST {_connected(stage, admin, tenant)}/credentials"


def _refused(stage: Stage, populated: Populated, admin: Client, tenant: dict[str, Any]) -> str:
    body = f'{{"session_policy": {{"Statement": [{"{}," * 1340}1]}}}}'
    return f"{_credentials(stage, populated, admin, tenant)}\t{body}"


def _connected(stage: Stage, admin: Client, tenant: dict[str, Any]) -> str:
    """Create a connection, and return its path."""
    arn = role_arn(tenant["id"], 0)
    stage.sts.register({arn: tenant["external_id"]})
    path = f"/v1/tenants/{tenant['id']}/connections"
    connection = admin.must("POST", path, {"role_arn": arn}, expect=201)
    return f"{path}/{connection['id']}"


_REQUESTS = {
    "list": _list,
    "page": _page,
    "verify": _verify,
    "credentials": _credentials,
    "refused": _refused,
}
