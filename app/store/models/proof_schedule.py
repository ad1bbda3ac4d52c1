"""The schedule of proofs, which computes a connection's `due_at`.

A role that refuses us may be new, or its administrator may be changing it. It is retried soon, then
less and less often, and given up in the end. A proven role is proven twice more: IAM takes
minutes to propagate a change, and a stranger may be refused at first and accepted later. After that
each interval has one routine proof. The same holds for a role that was proven before and is not any
more.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.store.models.base import Identified, state_column
from app.store.models.states import ConnectionStatus, Trigger, Verdict

_MINUTE = 60  # seconds


class Interval(NamedTuple):
    """Seconds between two routine proofs of a connection.

    It is REPROVE_EVERY, or longer if the STS budget requires that for the number of connections.
    """

    wanted: int
    seconds: int
    connections: int = 0

    @classmethod
    def of_fleet(cls, wanted: int, connections: int, proofs_a_second: float) -> "Interval":
        """Return the interval for this number of connections.

        It grows in steps of a quarter. Each change of the interval moves the slot of every
        connection, so a few more connections must not change it.
        """
        quarters = max(4, math.ceil(4 * connections / proofs_a_second / wanted))
        return cls(wanted, math.ceil(wanted * quarters / 4), connections)

    @property
    def every(self) -> timedelta:
        return timedelta(seconds=self.seconds)

    @property
    def pause(self) -> timedelta:
        """The backoff after an inconclusive proof or the first refusal of its own External ID."""
        return timedelta(seconds=min(_MINUTE, self.wanted))


_SOON = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 30, 60))
_HOURLY = timedelta(hours=1)
SEARCH_DAYS = 14  # an unproven role is tried for so long
_SETTLING = (timedelta(minutes=2), timedelta(minutes=15))
_LATE = timedelta(seconds=30)  # after the end of an access, because clocks differ


def next_soon(since: datetime, at: datetime) -> datetime | None:
    """Return the time of the next retry within the first minute after `since`.

    `since`: when the failures began. None after that minute.
    """
    return next((since + pause for pause in _SOON if at < since + pause), None)


def next_search(since: datetime, at: datetime) -> datetime | None:
    """Return the time of the next attempt at an unproven role; None when it is given up.

    `since`: when the search began. `at`: the latest attempt.
    """
    if soon := next_soon(since, at):
        return soon
    following = since + ((at - since) // _HOURLY + 1) * _HOURLY
    return following if following <= since + timedelta(days=SEARCH_DAYS) else None


def next_turn(connection_id: UUID, at: datetime, every: timedelta) -> datetime:
    """Return the time of a connection's next routine proof.

    Each interval has one slot for each connection, at a time that its id decides. So the proofs are
    spread evenly, even if many were late, as after a restart. A slot within the next quarter of the
    interval is skipped. Jitter delays a proof by up to a twentieth of the interval, and a slot must
    not be used twice.
    """
    seconds = every.total_seconds()
    # The last bits of a UUIDv7 are random
    turn = (connection_id.int & 0xFFFFFFFF) / 2**32 * seconds
    number = math.ceil((at.timestamp() + seconds / 4 - turn) / seconds)
    late = random.uniform(0, seconds / 20)  # noqa: S311  no secret
    return datetime.fromtimestamp(turn + number * seconds + late, UTC)


def next_settling(since: datetime, at: datetime) -> datetime | None:
    """Return when to repeat the first proof at `since`; None after the last repetition."""
    return next((since + pause for pause in _SETTLING if at < since + pause), None)


class ProofSchedule(Identified):
    """The columns of a connection's proofs: the next one, the latest attempt, the end of access."""

    # The time of the next proof (None: never), and the start of its schedule.
    due_at: Mapped[datetime | None] = mapped_column(default=now)
    due_since: Mapped[datetime | None]
    due_for: Mapped[Trigger] = mapped_column(
        state_column(Trigger, "due_for"), default=Trigger.CREATED
    )
    # The latest attempt at a proof, and the first of the consecutive refusals of its own External
    # ID.
    tried_at: Mapped[datetime | None] = mapped_column(index=True)
    refusing_since: Mapped[datetime | None]
    # Latest effective report of a client that AWS refused a session
    refused_at: Mapped[datetime | None]
    # End of access, from the trust policy at its last reading, or from its stack's message
    access_until: Mapped[datetime | None]

    def has_ended(self, at: datetime) -> bool:
        """Return whether the customer's end of access has passed. A refusal is then expected."""
        return self.access_until is not None and self.access_until <= at

    def note_attempt(self, at: datetime, *, refused: bool) -> None:
        """Record an attempt at a proof. `refused`: the role refused its own External ID."""
        self.tried_at = at
        self.refusing_since = (
            (self.refusing_since or at) if refused and not self.has_ended(at) else None
        )

    def is_settled(self, checked_at: datetime) -> bool:
        """Return whether the first proofs after the start of the schedule are over."""
        return self.due_since is not None and not next_settling(self.due_since, checked_at)

    def schedule_next(
        self,
        status: ConnectionStatus,
        verdict: Verdict,
        checked_at: datetime,
        interval: Interval,
        *,
        restarts: bool,
    ) -> None:
        """Schedule the proof after one with this verdict. `status`: after that proof.

        `restarts`: the schedule begins again.
        """
        if restarts or self.due_since is None:
            self.due_since = checked_at
        self.due_for, since = Trigger.SCHEDULED, self.due_since
        if status is ConnectionStatus.PENDING:
            self.due_at = next_search(since, checked_at)
            return
        turn = next_turn(self.id, checked_at, interval.every)
        # Compare by subtraction: the date may be the last possible one, and a sum would overflow.
        if self.access_until and checked_at - _LATE < self.access_until < turn:
            turn = self.access_until + _LATE
        if verdict is Verdict.INCONCLUSIVE:
            sooner: datetime | None = checked_at + interval.pause
        elif status is not ConnectionStatus.VERIFIED:
            sooner = next_soon(since, checked_at)
        else:
            sooner = next_settling(since, checked_at)
        self.due_at = min(turn, sooner or turn)
