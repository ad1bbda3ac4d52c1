"""The sandbox's clock, for the expiry of sessions and times in policies. Tests can advance it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

_ahead = timedelta()


def now() -> datetime:
    return datetime.now(UTC) + _ahead


@contextmanager
def ahead(by: timedelta) -> Iterator[None]:
    """Set the clock further ahead within the block."""
    global _ahead  # noqa: PLW0603  global as moto's state is
    before = _ahead
    _ahead = before + by
    try:
        yield
    finally:
        _ahead = before
