"""When a role is tried again by itself."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from app.ids import new_id
from app.store.models.proof_schedule import Interval, next_search, next_settling, next_turn

SINCE = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def offsets(following, begin=0.0) -> list[float]:
    """The seconds after the beginning at which a role is tried that never changes, each try
    taking half a second.
    """
    found, at = [], SINCE + timedelta(seconds=begin)
    while (due := following(SINCE, at)) is not None:
        found.append((due - SINCE).total_seconds())
        at = due + timedelta(seconds=0.5)
    return found


def test_a_search_is_quick_at_first_then_hourly_and_ends_after_14_days():
    found = offsets(next_search)
    assert found[:4] == [5, 15, 30, 60]
    assert found[4:] == [3600 * hour for hour in range(1, 14 * 24 + 1)]


def test_a_search_that_nobody_carried_for_a_while_goes_on_where_it_would_be():
    assert offsets(next_search, 40)[:2] == [60, 3600]
    assert offsets(next_search, 9_000)[:2] == [10_800, 14_400]
    assert offsets(next_search, 15 * 86_400) == []


def test_a_first_proof_is_repeated_after_2_and_15_minutes():
    assert offsets(next_settling) == [120, 900]
    assert offsets(next_settling, 130) == [900]
    assert offsets(next_settling, 900) == []


HOUR = timedelta(hours=1)


def test_turns_come_once_in_an_interval_and_a_little_late():
    connection = new_id()
    at = next_turn(connection, SINCE, HOUR)
    for delay in (0.5, 700, 0.5, 2000, 0.5, 3000, 0.5):
        before = at + timedelta(seconds=delay)
        at = next_turn(connection, before, HOUR)
        assert HOUR / 4 <= at - before <= HOUR * 1.3


def test_turns_are_spread_over_the_interval_however_late_the_proofs_were():
    """After an outage a whole fleet is proven within minutes: its next turns are no wave."""
    ids = [new_id() for _ in range(6_000)]
    in_slots = Counter(int(next_turn(one, SINCE, HOUR).timestamp() % 3600 // 360) for one in ids)
    assert len(in_slots) == 10
    assert max(in_slots.values()) < 1.5 * min(in_slots.values())


def test_turns_are_jittered():
    connection = new_id()
    assert len({next_turn(connection, SINCE, HOUR) for _ in range(50)}) > 40


def test_the_interval_of_a_fleet_grows_in_quarters():
    found = [
        Interval.of_fleet(3600, number, 10).seconds
        for number in (0, 36_000, 36_001, 45_000, 45_001, 360_000)
    ]
    assert found == [3600, 3600, 4500, 4500, 5400, 36_000]
