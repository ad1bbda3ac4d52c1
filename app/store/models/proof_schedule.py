"""The schedule of proofs: when a connection is due again, which its row keeps in `due_at`.

A role that refuses us may be new, or its administrator may be changing it: it is tried soon, then
more and more rarely, and given up at last. A proven role is tried twice more, because IAM takes
minutes to propagate a change, and a stranger who was refused at first may be accepted then. After
that it has its turn once in each interval, as has a role that was proven before and is not any
more.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

_MINUTE = 60  # seconds


class Interval(NamedTuple):
    """Seconds between two routine proofs of a connection: REPROVE_EVERY, and what the STS budget
    allows for so many.
    """

    wanted: int
    seconds: int
    connections: int = 0

    @classmethod
    def of_fleet(cls, wanted: int, connections: int, proofs_a_second: float) -> "Interval":
        """In steps of a quarter: another interval moves every connection's turn, so a few more
        must not change it.
        """
        quarters = max(4, math.ceil(4 * connections / proofs_a_second / wanted))
        return cls(wanted, math.ceil(wanted * quarters / 4), connections)

    @property
    def every(self) -> timedelta:
        return timedelta(seconds=self.seconds)

    @property
    def pause(self) -> timedelta:
        """Before a role is tried again that gave no clear answer, or refuses its own External ID
        for the first time.
        """
        return timedelta(seconds=min(_MINUTE, self.wanted))


_SOON = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 30, 60))
_HOURLY = timedelta(hours=1)
_GIVEN_UP = timedelta(days=14)
_SETTLING = (timedelta(minutes=2), timedelta(minutes=15))


def next_soon(since: datetime, at: datetime) -> datetime | None:
    """When to try a role again whose trouble began at `since`; None when that has lasted for a
    minute.
    """
    return next((since + pause for pause in _SOON if at < since + pause), None)


def next_search(since: datetime, at: datetime) -> datetime | None:
    """When to try an unproven role again; None when it was tried for long enough.

    `since`: when the search began; `at`: when it was last tried.
    """
    if soon := next_soon(since, at):
        return soon
    following = since + ((at - since) // _HOURLY + 1) * _HOURLY
    return following if following <= since + _GIVEN_UP else None


def next_turn(connection_id: UUID, at: datetime, every: timedelta) -> datetime:
    """The next routine proof. Each interval has one turn for each connection, at a moment that its
    id decides.

    So the proofs are spread evenly, also when many were late, as after a restart. A turn that comes
    within a quarter of the interval is left out: a turn is up to a twentieth late, and must not be
    taken twice.
    """
    seconds = every.total_seconds()
    turn = (
        (connection_id.int & 0xFFFFFFFF) / 2**32 * seconds
    )  # the last bits of a UUIDv7 are random
    number = math.ceil((at.timestamp() + seconds / 4 - turn) / seconds)
    late = random.uniform(0, seconds / 20)  # noqa: S311  no secret
    return datetime.fromtimestamp(turn + number * seconds + late, UTC)


def next_settling(since: datetime, at: datetime) -> datetime | None:
    """When to prove a role again that was proven first at `since`; None when it has settled."""
    return next((since + pause for pause in _SETTLING if at < since + pause), None)
