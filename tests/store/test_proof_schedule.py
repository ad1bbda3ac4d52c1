"""When a role is tried again by itself."""

from datetime import UTC, datetime, timedelta

from app.store.models.proof_schedule import next_search, next_settling

SINCE = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def offsets(following, begin=0.0) -> list[float]:
    """The seconds after the beginning at which a role is tried that never changes, each try taking half a second."""
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
