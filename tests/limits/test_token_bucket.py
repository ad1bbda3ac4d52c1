"""A token bucket: so many a second, some seconds' worth at once, and who has to wait waits in the
order of asking.
"""

import heapq
import math

import pytest

from app.ids import new_id
from app.limits.counting_in_memory import TokenBucket
from app.limits.limits import NEW_SESSIONS

RATE, BURST = 100, int(NEW_SESSIONS.burst)  # the default of TENANT_MISS_RATE


def test_a_pause_gives_no_more_than_a_burst(stopped_clock):
    bucket, tenant = TokenBucket(RATE, BURST), new_id()
    bucket.reserve(tenant, patience=0.0)
    stopped_clock.move(3600)
    taken = [bucket.reserve(tenant, patience=0.0) for _ in range(RATE * BURST + 1)]
    assert taken[:-1] == [0.0] * RATE * BURST
    assert taken[-1] > 0.0


@pytest.mark.parametrize("workers", [1, 16, 64])
def test_a_nightly_run_over_a_thousand_accounts_passes(stopped_clock, workers):
    """Every worker asks for the next account as soon as it has its session, 20 ms later, and no
    request is refused.
    """
    bucket, tenant = TokenBucket(RATE, BURST), new_id()
    begun = stopped_clock.monotonic()
    asking, left, done = [(begun, worker) for worker in range(workers)], 1000 - workers, []
    while asking:
        asked, worker = heapq.heappop(asking)
        stopped_clock.move(asked - stopped_clock.monotonic())
        wait = bucket.reserve(tenant, patience=0.8)
        assert wait <= 0.8
        done.append(asked + wait)
        if left:
            left -= 1
            heapq.heappush(asking, (asked + wait + 0.02, worker))
    assert len(done) == 1000
    for second in range(math.ceil(max(done) - begun)):
        assert sum(at <= begun + second for at in done) <= RATE * (BURST + second) + 1
