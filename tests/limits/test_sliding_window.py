"""The sliding window where clocks are wrong, and its waits."""

from contextlib import suppress
from datetime import timedelta

import pytest
import time_machine

from app.clock import now
from app.errors import RateLimitedError
from app.limits.counting_in_database import count_use
from app.store.models import QuotaUse


def used(number, counted, before):
    return QuotaUse(number=number, counted=counted, counted_before=before)


def count(use, current_time):
    return count_use(use, 60, 60, current_time)


def test_a_clock_that_is_a_little_behind_counts_in_the_window_that_has_begun():
    use = used(11, 59, 0)
    assert count(use, 659.5) == 0
    assert count(use, 659.5) > 0
    assert (use.number, use.counted, use.counted_before) == (11, 60, 0)


def test_a_clock_that_is_far_behind_begins_again():
    use = used(12, 60, 60)
    assert count(use, 600) == 0
    assert (use.number, use.counted, use.counted_before) == (10, 1, 0)


@pytest.mark.parametrize("counts", [(10, 60, 0), (10, 30, 60), (10, 59, 60)])
@pytest.mark.parametrize("passed", [1, 1.25, 29.75])
def test_the_wait_is_long_enough_and_not_longer_than_needed(counts, passed):
    wait = count(used(*counts), 600 + passed)
    assert wait > 0
    assert count(used(*counts), 600 + passed + wait + 1e-6) == 0
    assert count(used(*counts), 600 + passed + wait - 1.01) > 0


def test_changes_that_a_clock_far_ahead_refused_are_allowed_when_it_is_right_again(world):
    services, right = world.services, now()
    principal = services.api_keys.authenticate(world.key("keys:write", tenant=world.tenant()).key)

    def change():
        with services.db.write(services.quotas.limiting_changes(principal)):
            pass

    with time_machine.travel(right + timedelta(hours=1), tick=False):
        with suppress(RateLimitedError):
            for _ in range(100):
                change()
        with pytest.raises(RateLimitedError):
            change()
    with time_machine.travel(right + timedelta(seconds=30), tick=False):
        change()
