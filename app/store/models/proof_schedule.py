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

    configured: int  # REPROVE_EVERY
    seconds: int
    connections: int = 0

    @classmethod
    def for_connections(
        cls, configured: int, connections: int, proofs_a_second: float
    ) -> "Interval":
        """Return the interval for this number of connections.

        It grows in steps of a quarter. Each change of the interval moves the slot of every
        connection, so a few more connections must not change it.
        """
        quarters = max(4, math.ceil(4 * connections / proofs_a_second / configured))
        return cls(configured, math.ceil(configured * quarters / 4), connections)

    @property
    def every(self) -> timedelta:
        return timedelta(seconds=self.seconds)

    @property
    def pause(self) -> timedelta:
        """The backoff after an inconclusive proof or the first refusal of its own External ID."""
        return timedelta(seconds=min(_MINUTE, self.configured))


# Seconds after the first refusal, and after the first proof
_RETRIES = 5, 15, 30, 60
SETTLING = 120, 900
_HOURLY = timedelta(hours=1)
SEARCH_DAYS = 14  # an unproven role is tried for so long
_LATE = timedelta(seconds=30)  # after the end of an access, because clocks differ


def first_after(pauses: tuple[int, ...], since: datetime, tried_at: datetime) -> datetime | None:
    """Return the first time after `tried_at` that is one of the pauses after `since`.

    None after the last of them.
    """
    for seconds in pauses:
        due_at = since + timedelta(seconds=seconds)
        if due_at > tried_at:
            return due_at
    return None


def next_search(since: datetime, tried_at: datetime) -> datetime | None:
    """Return the time of the next attempt at an unproven role; None when it is given up.

    `since`: when the search began.
    """
    if soon := first_after(_RETRIES, since, tried_at):
        return soon
    due_at = since + ((tried_at - since) // _HOURLY + 1) * _HOURLY
    return due_at if due_at <= since + timedelta(days=SEARCH_DAYS) else None


def next_slot(connection_id: UUID, checked_at: datetime, every: timedelta) -> datetime:
    """Return the time of a connection's next routine proof.

    Each interval has one slot for each connection, at a time that its id decides. So the proofs are
    spread evenly, even if many were late, as after a restart. A slot within the next quarter of the
    interval is skipped. Jitter delays a proof by up to a twentieth of the interval, and a slot must
    not be used twice.
    """
    seconds = every.total_seconds()
    # The last bits of a UUIDv7 are random
    slot = (connection_id.int & 0xFFFFFFFF) / 2**32 * seconds
    number = math.ceil((checked_at.timestamp() + seconds / 4 - slot) / seconds)
    jitter = random.uniform(0, seconds / 20)  # noqa: S311  no secret
    return datetime.fromtimestamp(slot + number * seconds + jitter, UTC)


class ProofSchedule(Identified):
    """The columns of a connection's proofs: the next one, the latest attempt, the end of access."""

    # The time of the next proof (None: never), and the start of its schedule.
    due_at: Mapped[datetime | None] = mapped_column(default=now)
    due_since: Mapped[datetime | None]
    due_for: Mapped[Trigger] = state_column(Trigger, "due_for", default=Trigger.CREATED)
    # The latest attempt at a proof, and the first of the consecutive refusals of its own External
    # ID.
    tried_at: Mapped[datetime | None] = mapped_column(index=True)
    refusing_since: Mapped[datetime | None]
    # Latest effective report of a client that AWS refused a session
    refused_at: Mapped[datetime | None]
    # End of access, from the trust policy at its last reading, or from its stack's message
    access_until: Mapped[datetime | None]

    def has_ended(self, checked_at: datetime) -> bool:
        """Return whether the customer's end of access has passed. A refusal is then expected."""
        return self.access_until is not None and self.access_until <= checked_at

    def note_attempt(self, tried_at: datetime, *, refused: bool) -> None:
        """Record an attempt at a proof. `refused`: the role refused its own External ID."""
        self.tried_at = tried_at
        if not refused or self.has_ended(tried_at):
            self.refusing_since = None
        elif self.refusing_since is None:
            self.refusing_since = tried_at

    def is_settled(self, checked_at: datetime) -> bool:
        """Return whether the first proofs after the start of the schedule are over."""
        return self.due_since is not None and not first_after(SETTLING, self.due_since, checked_at)

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
        due_at = next_slot(self.id, checked_at, interval.every)
        # Compare by subtraction: the date may be the last possible one, and a sum would overflow.
        if self.access_until and checked_at - _LATE < self.access_until < due_at:
            due_at = self.access_until + _LATE
        if verdict is Verdict.INCONCLUSIVE:
            sooner: datetime | None = checked_at + interval.pause
        else:
            verified = status is ConnectionStatus.VERIFIED
            sooner = first_after(SETTLING if verified else _RETRIES, since, checked_at)
        self.due_at = min(due_at, sooner or due_at)
