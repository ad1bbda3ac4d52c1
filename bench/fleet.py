"""Rows 13 and 14: the cost of proving a million connections repeatedly.

PostgreSQL has a million proven connections, half of them due. One background worker runs as it is
deployed, against the STS that answers at once. It may first make 100, then 500 calls a second for
routine proofs. The results are the rate of proofs, their CPU time and memory, and the duration of a
round of the whole fleet.
"""

import json
import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench import cpu, growth
from bench.client import BenchError
from bench.goals import FLEET, ROUTINE
from bench.servers import Deputy, Process, run_python
from bench.stage import Stage
from dev.ports import free_port

_CALLS = (100, 500)  # calls a second for routine proofs, which get half of the STS budget
_ROLES = 20_000  # registered in the STS; more than are proven during the measurement
_AT_ONCE = 2_000  # roles in one request to the STS
_WARM_UP, _SECONDS = 3.0, 20.0


@dataclass(frozen=True, slots=True)
class _Throughput:
    """The results of a worker at one rate of calls."""

    proofs_a_second: float
    calls_a_proof: float
    cpu_ms: float  # the worker's CPU time for each proof
    megabytes: float

    def hours(self, connections: int) -> float:
        return connections / self.proofs_a_second / 3600

    def facts(self, connections: int) -> dict[str, Any]:
        """Return the report's figures."""
        return {
            "proofs a second": round(self.proofs_a_second, 1),
            "CPU of a proof in the worker, ms": round(self.cpu_ms, 2),
            "memory of the worker, MB": round(self.megabytes),
            f"hours for {connections:,} connections": round(self.hours(connections), 2),
        }


def measure(stage: Stage) -> None:
    size = stage.scale.growth[-1]
    _, deputy = growth.grow(stage, size, "fleet")
    roles = _make_due(stage, deputy)
    _register(stage, deputy, roles)
    claims = json.loads(run_python(("-m", "bench.turns"), deputy.environment).splitlines()[-1])
    _make_proven(deputy, roles, json.dumps(claims["checks"]))
    if "Index Scan using ix_connections_due_routine" not in claims["plan"]:
        raise BenchError(f"what is due is not read by a range of its index:\n{claims['plan']}")
    facts = {
        "plan of the due query": claims["plan"].splitlines(),
        "claims a second, without proofs": claims["claims a second"],
    }
    for rate in _CALLS:
        fastest = _proved(stage, deputy, rate)
        facts[f"at {rate} calls a second"] = fastest.facts(size)
    stage.findings.facts["fleet"] = facts
    calls, hours = fastest.calls_a_proof, fastest.hours(size)
    stage.findings.results.append(
        ROUTINE.judge(f"{calls:.2f}", round(calls, 2), values={"calls": calls})
    )
    text = f"{hours:.2f} h · {fastest.megabytes:.0f} MB"
    values = {"hours": hours, "megabytes": fastest.megabytes}
    stage.findings.results.append(
        FLEET.judge(text, round(hours, 2), fastest.megabytes, values=values)
    )


def _make_due(stage: Stage, deputy: Deputy) -> list[tuple[Any, ...]]:
    """Make half of the connections due. Return those that are due first."""
    stage.say("fleet: making half of them due")
    with psycopg.connect(deputy.database_url.replace("+psycopg", ""), autocommit=True) as server:
        server.execute(
            "UPDATE connections SET due_at = now() + (random() - 0.5) * interval '2 hours'"
        )
        server.execute("VACUUM ANALYZE connections")
        return server.execute(_FIRST, [_ROLES]).fetchall()


def _register(stage: Stage, deputy: Deputy, roles: list[tuple[Any, ...]]) -> None:
    """Register these roles in the STS, and store the ids that it assigned."""
    with psycopg.connect(deputy.database_url.replace("+psycopg", ""), autocommit=True) as server:
        for start in range(0, len(roles), _AT_ONCE):
            _, arns, external_ids = zip(*roles[start : start + _AT_ONCE], strict=True)
            stage.sts.register(dict(zip(arns, external_ids, strict=True)))
        row_ids, arns, _ = zip(*roles, strict=True)
        ids = list(zip(stage.sts.role_ids(arns), row_ids, strict=True))
        with server.cursor() as cursor, server.transaction():
            cursor.executemany("UPDATE connections SET role_unique_id = %s WHERE id = %s", ids)


def _make_proven(deputy: Deputy, roles: list[tuple[Any, ...]], checks: str) -> None:
    """Store the proofs' current checks, so that a routine proof finds no change."""
    with psycopg.connect(deputy.database_url.replace("+psycopg", ""), autocommit=True) as server:
        ids = [row_id for row_id, _, _ in roles]
        server.execute("UPDATE proofs SET checks = %s WHERE connection_id = ANY(%s)", [checks, ids])


_FIRST = """
SELECT c.id, c.role_arn, e.value FROM connections c JOIN external_ids e ON e.id = c.external_id_id
ORDER BY c.due_at LIMIT %s
"""


class _Worker(Process):
    """The background worker of one machine, as it is deployed."""

    def __init__(self, deputy: Deputy, calls: int) -> None:
        self._deputy = deputy
        environment = deputy.environment | {
            "DEPUTY_STS_BUDGET": str(2 * calls),
            "DEPUTY_METRICS_BIND": f"127.0.0.1:{free_port()}",
        }
        command = (deputy.checkout.python, "-m", "flask", "--app", "wsgi", "worker")
        super().__init__(f"fleet-worker-{calls}", command, environment, ready="")

    def _await(self, ready: str) -> None:  # noqa: ARG002  it listens to nobody
        """Wait until the worker has proven a connection."""
        before = _proofs(self._deputy)
        deadline = time.monotonic() + 60
        while _proofs(self._deputy) == before:
            if time.monotonic() > deadline:
                raise BenchError("the background worker proves nothing")
            time.sleep(0.2)

    def megabytes(self) -> float:
        status = Path(f"/proc/{self.pids()[0]}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _proofs(deputy: Deputy) -> int:
    """Return the number of proofs so far. The measurement tries no connection twice."""
    with psycopg.connect(deputy.database_url.replace("+psycopg", "")) as server:
        row = server.execute(
            "SELECT count(*) FROM connections WHERE tried_at IS NOT NULL"
        ).fetchone()
    return int(row[0]) if row else 0


def _proved(stage: Stage, deputy: Deputy, calls: int) -> _Throughput:
    stage.say(f"fleet: {_SECONDS:.0f} s of routine proofs at {calls} calls a second")
    calls_before, proofs_before = stage.sts.calls()["AssumeRole"], _proofs(deputy)
    with _Worker(deputy, calls) as worker:
        time.sleep(_WARM_UP)
        before = _counts(deputy, worker)
        time.sleep(_SECONDS)
        passed, used, proven = map(operator.sub, _counts(deputy, worker), before)
        if not proven:
            raise BenchError("nothing was proven")
        megabytes = worker.megabytes()
    # A worker finishes its proofs before it ends, so every call belongs to a counted proof.
    asked = stage.sts.calls()["AssumeRole"] - calls_before
    return _Throughput(
        proven / passed, asked / (_proofs(deputy) - proofs_before), used / proven * 1000, megabytes
    )


def _counts(deputy: Deputy, worker: _Worker) -> Sequence[float]:
    return time.monotonic(), cpu.seconds(worker.pids()), _proofs(deputy)
