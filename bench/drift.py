"""Row 15: the time until a loosened trust policy is detected, on a simulated clock.

The routine proofs of a fleet of connections share half of the STS budget. The schedule, the
interval and the budget are those of the service. The clock and AWS are simulated: each call takes
50 ms. At some moment each role's trust policy is loosened, and the next proof that begins detects
it.
"""

import heapq
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from app.config import Config
from app.ids import Broker, new_id
from app.proofs.schedule import ProofInterval, next_slot, routine_proofs_a_second
from bench.goals import DRIFT
from bench.stage import Stage

_BROKER = "arn:aws:iam::111122223333:role/broker"
_CONNECTIONS = 60_000
_BUDGET = 100  # calls a second, of which routine proofs get half
_CALLS = 3  # calls to AWS for a routine proof
_CALL = 0.05  # seconds
# Seconds that a call counts against the budget (app/limits/counting_in_memory.py)
_PLACE = 1 + _CALL


def measure(stage: Stage) -> None:
    stage.say(f"drift: {_CONNECTIONS:,} connections on a simulated clock")
    config = Config.of(
        database_url="",
        secret_keys=(),
        broker=Broker.parse(_BROKER),
        vendor_name="Acme",
        template_bucket="bucket",
        region="us-east-1",
        sts_budget=_BUDGET,
    )
    interval = ProofInterval.for_connections(
        config.proofs.reprove_every, _CONNECTIONS, routine_proofs_a_second(config.proofs)
    )
    hours = sorted(_unnoticed(interval))
    p99 = hours[int(len(hours) * 0.99)]
    stage.findings.facts["drift"] = {
        "connections": _CONNECTIONS,
        "interval, s": interval.seconds,
        "median, h": round(hours[len(hours) // 2], 2),
        "longest, h": round(hours[-1], 2),
    }
    stage.findings.results.append(DRIFT.judge(f"{p99:.2f} h", round(p99, 2), values={"hours": p99}))


def _unnoticed(interval: ProofInterval) -> Iterator[float]:
    """Yield for each role the hours from its loosening to the beginning of its next proof."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    every = timedelta(seconds=interval.seconds)
    rounds = 3 * every  # the first is ignored: due times begin at random
    due, loosened = [], {}
    for _ in range(_CONNECTIONS):
        connection_id = new_id()
        due.append((next_slot(connection_id, began, interval.seconds), connection_id))
        loosened[connection_id] = began + every + random.random() * every  # noqa: S311
    heapq.heapify(due)
    free = began
    while due and free < began + rounds:
        slot, connection_id = heapq.heappop(due)
        start = max(slot, free)
        free = start + timedelta(seconds=_CALLS * _PLACE / (_BUDGET / 2))
        if connection_id in loosened and start >= loosened[connection_id]:
            yield (start - loosened.pop(connection_id)).total_seconds() / 3600
        heapq.heappush(due, (next_slot(connection_id, start, interval.seconds), connection_id))
