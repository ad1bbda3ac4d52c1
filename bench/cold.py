"""Row 5: the rate of issuing without a cached session, compared with metadataproxy's.

Each answer takes one STS call, because no request is repeated in the whole run: each names another
connection or another duration. The number of STS calls must be between the answers that wrk
received and the requests that it sent.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from bench import peer
from bench.client import BenchError
from bench.goals import COLD, shown
from bench.hot import compare
from bench.load import Question, Wrk
from bench.population import KeyedConnection
from bench.rounds import Contender, Round, ratio
from bench.servers import Process
from bench.stage import Populated, Stage

_DURATIONS = range(900, 3600)  # 3600 is the hot rounds' default
_WARM_UP = 5  # seconds: until each web process has cached every key and every connection
_MOST_A_SECOND = 4_000  # more requests than a round can send


def unique(places: list[KeyedConnection]) -> Iterator[Question]:
    """Yield requests for sessions that are all different, one connection after the other."""
    for seconds, place in itertools.product(_DURATIONS, places):
        yield Question("POST", place.credentials, place.key, f'{{"duration_seconds":{seconds}}}')


class Counted(Contender):
    """A contender whose rounds must cause one STS call for each answer."""

    def __init__(
        self, stage: Stage, name: str, server: Process, questions: Callable[[], Sequence[Question]]
    ) -> None:
        super().__init__(name, server, questions)
        self._sts = stage.sts

    def run(self, wrk: Wrk, seconds: int) -> Round:
        before = self._sts.calls()["AssumeRole"]
        done = super().run(wrk, seconds)
        time.sleep(0.3)  # for requests in flight when wrk disconnected
        calls = self._sts.calls()["AssumeRole"] - before
        if not done.answered <= calls <= done.sent:
            raise BenchError(
                f"{self.name}: {calls} STS calls for {done.answered} answers to {done.sent}"
                " questions."
            )
        return done


def measure(stage: Stage) -> None:
    own = _deputy(stage, "at this commit", stage.on_postgres)
    other = Counted(stage, "metadataproxy cold", stage.peer(cold=True), lambda: [peer.QUESTION])
    before = []
    if stage.against:
        before.append(_deputy(stage, f"at {stage.against}", stage.at_other_commit))
    everybody = (own, *before, other)
    for contender in everybody:
        contender.run(stage.wrk, _WARM_UP)
    facts = compare(stage, "cold", everybody)
    rate = ratio(own, other, lambda figures: figures.per_second)
    for earlier in before:
        facts[f"answers / {earlier.name}"] = ratio(own, earlier, lambda figures: figures.per_second)
        facts[f"CPU a request / {earlier.name}"] = ratio(
            own, earlier, lambda figures: figures.cpu_us
        )
    stage.findings.facts["cold, one STS call for each answer"] = facts
    stage.findings.results.append(COLD.judge(shown(rate), rate.median, values={"ratio": rate}))


def _deputy(stage: Stage, name: str, populated: Populated) -> Counted:
    left = unique(populated.places)
    most = _MOST_A_SECOND * max(stage.scale.seconds, _WARM_UP)
    deputy = Counted(
        stage, f"Deputy {name}", populated.server, lambda: list(itertools.islice(left, most))
    )
    deputy.once, deputy.database = True, populated.database
    return deputy
