"""When a role is tried again by itself: what a proof leaves behind in `due_at`, and the worker acts on.

A role that refuses us may be seconds old, or its administrator may be reading the advice just now: it is tried soon,
then ever more rarely, and in the end given up. A role that was proven is tried twice more, as IAM takes minutes to
spread a change, and a stranger who is refused at first may be let in by then.
"""

from datetime import datetime, timedelta

_SOON = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 30, 60))
_HOURLY = timedelta(hours=1)
_GIVEN_UP = timedelta(days=14)
_SETTLING = (timedelta(minutes=2), timedelta(minutes=15))
UNCLEAR = timedelta(minutes=1)  # after an answer that proves nothing about a proven role


def next_search(since: datetime, at: datetime) -> datetime | None:
    """When to try a role again that was not proven; None when it has been tried for long enough.

    `since`: when the search began; `at`: when it was last tried.
    """
    for pause in _SOON:
        if at < since + pause:
            return since + pause
    following = since + ((at - since) // _HOURLY + 1) * _HOURLY
    return following if following <= since + _GIVEN_UP else None


def next_settling(since: datetime, at: datetime) -> datetime | None:
    """When to prove a role again that was proven first at `since`; None when it has settled."""
    return next((since + pause for pause in _SETTLING if at < since + pause), None)
