"""When the next proof of a connection is due: the columns and the arithmetic of its schedule.

The schedule computes a connection's `due_at`. A role that refuses Deputy may be new, or its
administrator may be changing it. Deputy retries soon, then less and less often, and gives up in the
end. A role that passes its first proof gets two more proofs soon, because IAM takes minutes to
propagate a change: the role may refuse a stranger at first and accept it later. After that, each
interval has one routine proof. A role that was proven before and fails now is retried soon as well,
and then gets one routine proof per interval.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.store.models.base import Identified
from app.store.models.connection_status import ConnectionStatus
from app.store.models.proof import Trigger, Verdict

_MINUTE = 60  # seconds
_RETRIES = 5, 15, 30, 60  # seconds from the start of the schedule, for a role that refuses
SETTLING = 120, 900  # seconds from the start of the schedule, for a role that is proven
_HOURLY = timedelta(hours=1)
SEARCH_DAYS = 14  # an unproven role is given up after this time
_LATE = timedelta(seconds=30)  # delay of the proof after an end of access, because clocks differ


class Interval(NamedTuple):
    """The interval between two routine proofs of a connection.

    It is REPROVE_EVERY, or longer if there are too many connections for the STS budget.
    """

    configured: int  # REPROVE_EVERY, in seconds
    seconds: int  # the interval itself
    connections: int = 0

    @classmethod
    def for_connections(
        cls, configured: int, connections: int, proofs_a_second: float
    ) -> "Interval":
        """Return the interval for this number of connections.

        It grows in steps of a quarter of REPROVE_EVERY. A change of the interval moves the slots of
        all connections, so it must not change with every few connections.
        """
        quarters = max(4, math.ceil(4 * connections / proofs_a_second / configured))
        return cls(configured, math.ceil(configured * quarters / 4), connections)

    @property
    def pause(self) -> timedelta:
        """The backoff after an inconclusive proof, or after a role's first refusal."""
        return timedelta(seconds=min(_MINUTE, self.configured))


def first_after(pauses: tuple[int, ...], since: datetime, tried_at: datetime) -> datetime | None:
    """Return the first of the times `since` + pause that is later than `tried_at`.

    Return None if all of them have passed.
    """
    for seconds in pauses:
        due_at = since + timedelta(seconds=seconds)
        if due_at > tried_at:
            return due_at
    return None


def next_search(since: datetime, tried_at: datetime) -> datetime | None:
    """Return the time of the next proof of an unproven role; None when the role is given up.

    `since`: the start of the schedule.
    """
    if soon := first_after(_RETRIES, since, tried_at):
        return soon
    due_at = since + ((tried_at - since) // _HOURLY + 1) * _HOURLY
    return due_at if due_at <= since + timedelta(days=SEARCH_DAYS) else None


def next_slot(connection_id: UUID, checked_at: datetime, seconds: int) -> datetime:
    """Return the time of a connection's next routine proof.

    An interval lasts `seconds`. Each connection has one slot in each interval, at a position that
    depends on its id. So the proofs are spread evenly, even if a restart delayed many. Jitter
    delays the proof by up to a twentieth of the interval. A slot within the next quarter of the
    interval is skipped, so that no slot is used twice.
    """
    # The last bits of a UUIDv7 are random
    slot = (connection_id.int & 0xFFFFFFFF) / 2**32 * seconds
    number = math.ceil((checked_at.timestamp() + seconds / 4 - slot) / seconds)
    jitter = random.uniform(0, seconds / 20)  # noqa: S311  no secret
    return datetime.fromtimestamp(slot + number * seconds + jitter, UTC)


class ProofSchedule(Identified):
    """The columns of a connection that its schedule of proofs uses."""

    # The time of the next proof; None: no proof is scheduled
    due_at: Mapped[datetime | None] = mapped_column(default=now)
    # The start of the schedule
    due_since: Mapped[datetime | None]
    due_for: Mapped[Trigger] = mapped_column(default=Trigger.CREATED)
    # The latest attempt at a proof
    tried_at: Mapped[datetime | None] = mapped_column(index=True)
    # Since when the role has refused its own External ID at every attempt
    refusing_since: Mapped[datetime | None]
    # When a client's report that AWS refuses a session last took effect
    refused_at: Mapped[datetime | None]
    # The end of access, as last read in the trust policy or in the stack's message
    access_until: Mapped[datetime | None]

    def has_ended(self, checked_at: datetime) -> bool:
        """Return whether the end of access has passed. The role then refuses Deputy as intended."""
        return self.access_until is not None and self.access_until <= checked_at

    def note_attempt(self, tried_at: datetime, *, refused: bool) -> None:
        """Record an attempt at a proof. `refused`: the role refused its own External ID."""
        self.tried_at = tried_at
        if not refused or self.has_ended(tried_at):
            self.refusing_since = None
        elif self.refusing_since is None:
            self.refusing_since = tried_at

    def schedule_next(
        self,
        status: ConnectionStatus,
        verdict: Verdict,
        checked_at: datetime,
        interval: Interval,
        *,
        restarts: bool,
    ) -> None:
        """Schedule the next proof, after a proof with this verdict.

        `status`: the connection's status after that proof. `restarts`: the schedule starts again.
        """
        if restarts or self.due_since is None:
            self.due_since = checked_at
        self.due_for, since = Trigger.SCHEDULED, self.due_since
        if status is ConnectionStatus.PENDING:
            self.due_at = next_search(since, checked_at)
            return
        due_at = next_slot(self.id, checked_at, interval.seconds)
        # A sum would overflow if access_until is the last possible date, so subtract instead.
        if self.access_until and checked_at - _LATE < self.access_until < due_at:
            due_at = self.access_until + _LATE
        if verdict is Verdict.INCONCLUSIVE:
            sooner: datetime | None = checked_at + interval.pause
        else:
            verified = status is ConnectionStatus.VERIFIED
            sooner = first_after(SETTLING if verified else _RETRIES, since, checked_at)
        self.due_at = min(due_at, sooner or due_at)
