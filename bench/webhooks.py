"""Row 24: the deliveries of one background worker, compared with a bare loop of `requests.post`.

The receiver answers at once. In each round the worker starts when all events are stored. Its rate
is counted from the first request that arrives to the last. The loop posts the same body as often,
in as many threads. Then events are made at a fixed rate. A delivery's time begins with the request
that makes the event, so it includes the time until the commit.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count

import psycopg

from app.webhooks.delivery import THREADS
from bench.client import BenchError
from bench.goals import WEBHOOKS, shown
from bench.receiver import Receiver
from bench.rounds import Spread
from bench.servers import Deputy, run_python
from bench.stage import Stage
from dev.stack import ROOT, end_process, end_with_parent

_ENDPOINTS = 8  # an endpoint uses at most four threads, so eight keep all 32 busy
_EVENTS = 250  # a round's
_A_SECOND = 20
_PATIENCE = 120.0
_LOCAL = {"DEPUTY_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}


@contextlib.contextmanager
def _worker(deputy: Deputy) -> Iterator[None]:
    """Run a background worker."""
    environment = {
        name: value for name, value in deputy.environment.items() if name != "DEPUTY_METRICS_BIND"
    }
    child = subprocess.Popen(
        (sys.executable, "-m", "flask", "--app", "wsgi", "worker"),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509  one C call
    )
    try:
        yield
    finally:
        end_process(child)


class Events:
    """Makes events by creating tenants, each of which has a reference of its own."""

    def __init__(self, deputy: Deputy) -> None:
        self._client, self._numbers = deputy.admin(), count()

    def make(self) -> str:
        """Make an event, and return its reference."""
        reference = f"bench-{next(self._numbers)}"
        tenant = {"name": "Newcomer", "reference": reference}
        self._client.must("POST", "/v1/tenants", tenant, expect=201)
        return reference

    def add_endpoint(self, url: str) -> None:
        body = {"url": url, "types": ["*"]}
        self._client.must("POST", "/v1/webhook-endpoints", body, expect=201)


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / (max(times) - min(times))


def _ratios(stage: Stage, deputy: Deputy, receiver: Receiver, events: Events) -> Spread:
    """Return the worker's rates divided by the loop's."""
    number, ratios = _EVENTS * _ENDPOINTS, []
    for _ in range(stage.scale.rounds):
        for _ in range(_EVENTS):
            events.make()
        with _worker(deputy):
            deliveries = receiver.take(number, within=_PATIENCE)
        body = json.dumps(deliveries[0][1])
        url = f"http://127.0.0.1:{receiver.port}/"
        run_python(("-m", "bench.posts", url, str(THREADS), str(number)), deputy.environment, body)
        posts = receiver.take(number, within=_PATIENCE)
        rates = [_rate([seconds for seconds, _ in arrived]) for arrived in (deliveries, posts)]
        stage.say(f"webhooks: {rates[0]:.0f} deliveries, {rates[1]:.0f} posts a second")
        ratios.append(rates[0] / rates[1])
    return Spread.of(ratios)


def _delays(stage: Stage, deputy: Deputy, receiver: Receiver, events: Events) -> list[float]:
    """Return the sorted seconds until each first attempt, while events are made at a fixed rate."""
    number, sent_at = 5 * stage.scale.seconds * _A_SECOND, {}
    with _worker(deputy):
        events.make()
        receiver.take(_ENDPOINTS, within=_PATIENCE)
        began = time.perf_counter()
        for each in range(number):
            time.sleep(max(0.0, began + each / _A_SECOND - time.perf_counter()))
            sent = time.perf_counter()
            sent_at[events.make()] = sent
        attempts = receiver.take(number * _ENDPOINTS, within=_PATIENCE)
    return sorted(
        seconds - sent_at[event["data"]["tenant_reference"]] for seconds, event in attempts
    )


def measure(stage: Stage) -> None:
    database = "webhooks"
    with psycopg.connect(stage.postgres.url().replace("+psycopg", ""), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {database}")
    stage.say(
        f"webhooks: {stage.scale.rounds} rounds of {_EVENTS} events for {_ENDPOINTS} endpoints"
    )
    with (
        Deputy.on("deputy-webhooks", stage.postgres.url(database), stage.sts) as closed,
        closed.twin("deputy-webhooks", _LOCAL) as deputy,
        Receiver() as receiver,
    ):
        events = Events(deputy)
        for number in range(_ENDPOINTS):
            events.add_endpoint(f"http://127.0.0.1:{receiver.port}/{number}")
        try:
            ratios = _ratios(stage, deputy, receiver, events)
            delays = _delays(stage, deputy, receiver, events)
        except TimeoutError as error:
            raise BenchError(f"Webhooks: {error} within {_PATIENCE:.0f} s.") from error
    p99 = delays[int(len(delays) * 0.99)]
    stage.findings.facts["webhooks"] = {
        "deliveries / posts": ratios,
        "median until the first attempt, s": delays[len(delays) // 2],
        "p99, s": p99,
    }
    measured = f"{shown(ratios)} · {p99:.2f} s"
    values = {"ratio": ratios.median, "seconds": p99}
    stage.findings.results.append(WEBHOOKS.judge(measured, ratios.median, p99, values=values))
