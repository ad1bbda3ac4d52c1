"""Row 18: the STS calls for many simultaneous and repeated requests to `/readyz`.

`/readyz` is public. The result of GetCallerIdentity is cached for five seconds, and one call serves
all requests meanwhile, however slow AWS is. So each process may make one call per five seconds, and
one more in the first five seconds.
"""

import contextlib
import math
import threading
import time

from bench.client import Client
from bench.goals import READINESS
from bench.stage import Stage

_CLIENTS = 80
_SECONDS = 16.0
_KEPT_SECONDS = 5
_AWS_SECONDS = 0.3


def measure(stage: Stage) -> None:
    deputy = stage.on_postgres.server
    stage.say(f"readiness: {_CLIENTS} clients for {_SECONDS:.0f} s")
    answers = [0] * _CLIENTS
    before = stage.sts.calls()["GetCallerIdentity"]
    stage.sts.answer_after(_AWS_SECONDS)
    try:
        over = time.monotonic() + _SECONDS

        def ask(number: int) -> None:
            with contextlib.closing(Client(deputy.port, "")) as client:
                while time.monotonic() < over:
                    answers[number] += client.ask("GET", "/readyz").status == 200

        asking = [threading.Thread(target=ask, args=(number,)) for number in range(_CLIENTS)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
    finally:
        stage.sts.answer_after(0)
    calls = stage.sts.calls()["GetCallerIdentity"] - before
    allowed = stage.workers.workers * (math.ceil(_SECONDS / _KEPT_SECONDS) + 1)
    values = {"calls": calls, "allowed": allowed, "answers": sum(answers)}
    stage.findings.facts["STS calls for readiness"] = values
    stage.findings.results.append(
        READINESS.judge(f"{calls} of {allowed}", calls / allowed, values=values)
    )
