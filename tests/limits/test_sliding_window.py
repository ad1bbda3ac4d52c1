"""The sliding window where clocks are wrong, and its waits; test_quotas.py has the rest."""

from dataclasses import replace

import pytest

from app.limits.sliding_window import SlidingWindow, Uses

MINUTE = SlidingWindow(60, 60)


def test_a_clock_that_is_a_little_behind_counts_in_the_window_that_has_begun():
    uses = Uses(number=11, counted=59)
    assert MINUTE.count(uses, 659.5) == 0
    assert MINUTE.count(uses, 659.5) > 0
    assert uses == Uses(11, 60, 0)


def test_a_clock_that_is_far_behind_begins_again():
    uses = Uses(number=12, counted=60, before=60)
    assert MINUTE.count(uses, 600) == 0
    assert uses == Uses(10, 1, 0)


@pytest.mark.parametrize("uses", [Uses(10, 60, 0), Uses(10, 30, 60), Uses(10, 59, 60)])
@pytest.mark.parametrize("passed", [1, 1.25, 29.75])
def test_the_wait_is_long_enough_and_not_longer_than_needed(uses: Uses, passed: float):
    wait = MINUTE.count(replace(uses), 600 + passed)
    assert wait > 0
    assert MINUTE.count(replace(uses), 600 + passed + wait + 1e-6) == 0
    assert MINUTE.count(replace(uses), 600 + passed + wait - 1.01) > 0
