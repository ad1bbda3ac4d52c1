"""The clock: only this module reads the time and checks times that come from outside."""

import time
from datetime import UTC, datetime

CLOCKS_APART = 5  # maximum difference between the clocks of two machines

YEARS = "must be between the years 1970 and 9998."


def now() -> datetime:
    """Return the current time, aware and in UTC."""
    return datetime.now(UTC)


def timestamp() -> float:
    """Return the seconds since 1970, ten times as fast as `now().timestamp()`."""
    return time.time()


def seconds_between(earlier: datetime | None, later: datetime) -> float:
    """Return the seconds from one time to another. Return 0 if there is no earlier time."""
    return max(0.0, (later - (earlier or later)).total_seconds())


def as_given(time_outside: datetime) -> datetime:
    """Convert a time that came from outside to UTC.

    Raises ValueError outside the years 1970 to 9998, because arithmetic with such a time could
    overflow.
    """
    if not 1970 <= time_outside.year <= 9998:
        raise ValueError(YEARS)
    return time_outside.astimezone(UTC)
