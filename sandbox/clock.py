"""The sandbox's clock, by which sessions end and policies compare times. Tests can set it ahead."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

_ahead = timedelta()


def now() -> datetime:
    return datetime.now(UTC) + _ahead


@contextmanager
def ahead(by: timedelta) -> Iterator[None]:
    """Set the clock further ahead within the block."""
    global _ahead  # noqa: PLW0603  moto's state is of the whole process too
    before = _ahead
    _ahead = before + by
    try:
        yield
    finally:
        _ahead = before
