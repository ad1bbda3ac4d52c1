"""Row 19: the longest wait of a request while AWS hangs, and while the database hangs.

SDKs give up on a credentials endpoint after two seconds, so a request that can't be answered in
that time gets a 503 earlier. To make AWS hang, the STS delays its answers, and every request needs
a new session. To make the database hang, all of its processes are stopped. The requested sessions
are then in the cache, but can't be recorded.
"""

import contextlib
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench import cpu
from bench.client import BenchError
from bench.goals import PATIENCE
from bench.hot import contender, warm
from bench.population import KeyedConnection
from bench.stage import Stage

_HANDS = 24
_SECONDS = 8
_PAUSE = 0.1  # between a client's requests, because immediate refusals would be additional load
_HANGS = 60.0  # longer than any timeout
_DURATION = 900  # seconds, the shortest session; each request adds a second


@contextlib.contextmanager
def _aws(stage: Stage) -> Iterator[None]:
    stage.sts.answer_after(_HANGS)
    try:
        yield
    finally:
        stage.sts.answer_after(0)


@contextlib.contextmanager
def _database(stage: Stage) -> Iterator[None]:
    stopped = cpu.family(stage.postmaster)
    try:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _longest(stage: Stage, *, cached: bool) -> tuple[float, Counter[int]]:
    """Return the longest wait of all requests, in seconds, and the answers' statuses."""
    new, over = itertools.count(_DURATION), time.monotonic() + _SECONDS

    def ask(place: KeyedConnection) -> tuple[float, Counter[int]]:
        longest, statuses = 0.0, Counter[int]()
        with contextlib.closing(stage.on_postgres.server.client(place.key)) as client:
            while time.monotonic() < over:
                began = time.monotonic()
                body = None if cached else {"duration_seconds": next(new)}
                statuses[client.ask("POST", place.credentials, body).status] += 1
                longest = max(longest, time.monotonic() - began)
                time.sleep(_PAUSE)
        return longest, statuses

    with ThreadPoolExecutor(_HANDS) as hands:
        waits, counts = zip(*hands.map(ask, stage.on_postgres.places[:_HANDS]), strict=True)
    return max(waits), sum(counts, Counter())


def measure(stage: Stage) -> None:
    warm(stage, contender("Deputy on PostgreSQL", stage.on_postgres))
    waits = []
    for system, hanging, cached in (
        ("AWS", _aws(stage), False),
        ("the database", _database(stage), True),
    ):
        stage.say(f"patience: {_SECONDS} s of {_HANDS} clients while {system} hangs")
        with hanging:
            longest, statuses = _longest(stage, cached=cached)
        if set(statuses) != {503}:
            raise BenchError(
                f"While {system} hung, the answers were {dict(statuses)}, not 503 alone."
            )
        stage.findings.facts[f"longest wait while {system} hangs"] = {
            "seconds": longest,
            "answers": statuses[503],
        }
        waits.append(longest)
    measured = " · ".join(f"{longest:.2f} s" for longest in waits)
    stage.findings.results.append(PATIENCE.judge(measured, *waits, values={"seconds": waits}))
