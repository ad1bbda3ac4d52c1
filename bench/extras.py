"""The cost of each part of a cached issuance, in the service.

`python -m bench.extras`, in the service's environment. It sends one request after the other in one
process, with a clock around each part: plain requests, as clients send them, and requests through
Flask. In a deployment, the limiter, the request id, the security headers and the metrics may
together cost 100 µs.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from app.config import Config
from app.factory import create_app
from app.http.plain_requests import PlainReader
from app.issuing import issue
from bench.client import BenchError
from bench.servers import run_python
from bench.stage import Stage

_REQUESTS = 1_000  # each kind's
_PLAIN, _FLASK = "plain", "through Flask"
_EXTRAS = ("rate limit", "metrics", "before", "after")
_PARTS = {
    "rate limit": ("rates", "acquire_issuance"),
    "API key": ("authorization", "authenticate"),
    "connection": ("authorization", "authorize_issuance"),
    "cached session": ("_sessions", "obtain"),
    "audit log, one durable commit": ("audit", "append"),
}


def measure(stage: Stage) -> None:
    stage.say("extras: a clock around each part of a hot request")
    hot = stage.on_postgres
    place = hot.places[0]
    given = json.dumps({"path": place.credentials, "key": place.key})
    # Metrics are in files, as in web processes, which share them.
    environment = {**hot.server.environment, "PROMETHEUS_MULTIPROC_DIR": str(stage.folder)}
    times = json.loads(run_python(("-m", "bench.extras"), environment, given).splitlines()[-1])
    through_flask = times[_FLASK]
    extras = sum(through_flask[name] for name in through_flask if name.startswith(_EXTRAS))
    stage.findings.facts["parts of one hot request, µs"] = times | {
        "limit, metrics and hooks together, through Flask": extras
    }


class Clock:
    """Measures the time of the functions that it wraps."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        times = self.times.setdefault(name, [])

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                times.append(time.perf_counter() - began)

        return timed

    def medians(self, times: int) -> dict[str, float]:
        """Return the median of each part's times in microseconds, and clear them.

        Parts with fewer records than half of `times` are left out.
        """
        medians = {}
        for name, taken in self.times.items():
            if len(taken) > times / 2:
                medians[name] = statistics.median(taken) * 1e6
            taken.clear()
        return medians


def main() -> None:
    app, clock = create_app(Config.from_environment()), Clock()
    services = app.extensions["deputy"]
    for name, (part, method) in _PARTS.items():
        owner = getattr(services, part, None) or getattr(services.issuer, part)
        setattr(owner, method, clock.around(name, getattr(owner, method)))
    counted = issue.ISSUE_SECONDS["cache"]
    counted.observe = clock.around("metrics", counted.observe)  # type: ignore[method-assign]
    for when, hooks in (("before", app.before_request_funcs), ("after", app.after_request_funcs)):
        hooks[None] = [
            clock.around(f"{when} a request: {_name(hook)}", hook) for hook in hooks.get(None, [])
        ]
    given = json.load(sys.stdin)
    endpoint, key = app.extensions["deputy.plain_requests"], f"Bearer {given['key']}"
    reader = PlainReader(endpoint.target)
    sent = (
        f"POST {given['path']} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n\r\n".encode()
    )

    def through_flask() -> bool:
        return (
            app.test_client().post(given["path"], headers={"Authorization": key}).status_code == 200
        )

    def plain() -> bool:
        request = reader.read(sent)
        return request is not None and isinstance(
            endpoint.answer(request, "127.0.0.1", nullcontext), bytes
        )

    medians = {}
    for kind, ask in ((_FLASK, through_flask), (_PLAIN, plain)):
        timed = clock.around("the whole request", ask)
        if not all(timed() for _ in range(_REQUESTS)):
            raise BenchError(f"A hot request, {kind}, was refused.")
        medians[kind] = clock.medians(_REQUESTS)
    print(json.dumps(medians))


def _name(hook: Callable[..., Any]) -> str:
    return hook.__name__.strip("_").replace("_", " ")


if __name__ == "__main__":
    main()
