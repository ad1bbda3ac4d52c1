"""Turns: so many a second, some seconds' worth at once, and who has to wait waits in the order
of asking.
"""

import heapq
import math

import pytest

from app.ids import new_id
from app.limits.turns import Turns

RATE, BURST = 100, 5  # TENANT_MISS_RATE, and the seconds of it that may come at once


def test_a_burst_comes_at_once_and_then_one_waits_for_the_next_turn(stopped_clock):
    turns, tenant, other = Turns(RATE, BURST), new_id(), new_id()
    assert [turns.reserve(tenant, patience=0.0) for _ in range(RATE * BURST)] == [
        0.0
    ] * RATE * BURST
    assert turns.reserve(tenant, patience=0.0) == pytest.approx(0.01)
    waits = [turns.reserve(tenant, patience=1.0) for _ in range(3)]
    assert waits == pytest.approx([0.01, 0.02, 0.03]), (
        "each has a turn of its own, and who took none has none"
    )
    assert turns.reserve(other, patience=0.0) == 0.0
    stopped_clock.move(1.0)
    assert [turns.reserve(tenant, patience=0.0) for _ in range(97)] == [0.0] * 97
    assert turns.reserve(tenant, patience=0.0) > 0.0


def test_a_pause_gives_no_more_than_a_burst(stopped_clock):
    turns, tenant = Turns(RATE, BURST), new_id()
    turns.reserve(tenant, patience=0.0)
    stopped_clock.move(3600)
    taken = [turns.reserve(tenant, patience=0.0) for _ in range(RATE * BURST + 1)]
    assert taken[:-1] == [0.0] * RATE * BURST
    assert taken[-1] > 0.0


@pytest.mark.parametrize("workers", [1, 16, 64])
def test_a_nightly_run_over_a_thousand_accounts_passes(stopped_clock, workers):
    """Every worker asks for the next account as soon as it has its session, 20 ms later, and no
    request is refused.
    """
    turns, tenant, begun = Turns(RATE, BURST), new_id(), stopped_clock.monotonic()
    asking, left, done = [(begun, worker) for worker in range(workers)], 1000 - workers, []
    while asking:
        asked, worker = heapq.heappop(asking)
        stopped_clock.move(asked - stopped_clock.monotonic())
        wait = turns.reserve(tenant, patience=0.8)
        assert wait <= 0.8
        done.append(asked + wait)
        if left:
            left -= 1
            heapq.heappush(asking, (asked + wait + 0.02, worker))
    assert len(done) == 1000
    for second in range(math.ceil(max(done) - begun)):
        assert sum(at <= begun + second for at in done) <= RATE * (BURST + second) + 1
