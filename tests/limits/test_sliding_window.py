"""The sliding window by itself: two counts, of which the earlier one fades."""

from dataclasses import replace

import pytest

from app.limits.sliding_window import SlidingWindow, Uses

MINUTE = SlidingWindow(60, 60)


def test_uses_are_counted_up_to_the_limit():
    uses = Uses()
    assert [MINUTE.count(uses, 600) for _ in range(60)] == [0] * 60
    assert MINUTE.count(uses, 600) > 0
    assert uses == Uses(number=10, counted=60, before=0), "a refused one is not counted"


def test_the_window_before_fades_evenly():
    uses = Uses(number=10, counted=60)
    assert MINUTE.count(uses, 660) == 1.0, "one of 60 fades in a second"
    assert MINUTE.count(uses, 661) == 0
    assert uses == Uses(11, 1, 60)
    uses = Uses(11, 30, 60)
    assert MINUTE.count(uses, 689.5) == pytest.approx(1.5)
    assert MINUTE.count(uses, 691) == 0


def test_an_older_window_counts_for_nothing():
    uses = Uses(number=10, counted=60, before=60)
    assert MINUTE.count(uses, 720) == 0
    assert uses == Uses(12, 1, 0)


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


def test_the_wait_is_never_longer_than_the_window():
    assert MINUTE.count(Uses(10, 60), 600) == 60
