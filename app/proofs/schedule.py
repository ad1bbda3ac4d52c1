"""When the next proof of a connection is due: the schedule, and the interval of routine proofs.

The schedule computes a connection's `due_at`. A role that refuses Deputy may be new, or its
administrator may be changing it. Deputy retries soon, then less and less often, and gives up in the
end. A role that passes its first proof gets two more proofs soon, because IAM takes minutes to
propagate a change: the role may refuse a stranger at first and accept it later. After that, each
interval has one routine proof. A role that was proven before and fails now is retried soon as well,
and then gets one routine proof per interval. The interval keeps within the budget of calls to STS.
"""

import math
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select

from app.config import Config, ProofConfig
from app.limits.limits import ROUTINE_SHARE
from app.log import logger
from app.store.database import Database
from app.store.models import IN_ROUTINE, Connection, ConnectionStatus, Proof, Trigger, Verdict

_MINUTE = 60  # seconds
_RETRIES = 5, 15, 30, 60  # seconds from the start of the schedule, for a role that refuses
_SETTLING = 120, 900  # seconds from the start of the schedule, for a role that is proven
_HOURLY = timedelta(hours=1)
SEARCH_DAYS = 14  # an unproven role is given up after this time
_LATE = timedelta(seconds=30)  # delay of the proof after an end of access, because clocks differ
_COUNTED_EVERY = 60.0  # seconds between two counts of the connections


class ProofInterval(NamedTuple):
    """The interval between two routine proofs of a connection.

    It is REPROVE_EVERY, or longer if there are too many connections for the STS budget.
    """

    configured: int  # REPROVE_EVERY, in seconds
    seconds: int  # the interval itself
    connections: int = 0

    @classmethod
    def for_connections(
        cls, configured: int, connections: int, proofs_a_second: float
    ) -> "ProofInterval":
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


class RoutineInterval:
    """Computes the interval from the number of connections, counted once a minute.

    Safe to share among threads.
    """

    def __init__(self, db: Database, config: Config) -> None:
        self._db = db
        self._proofs_a_second = routine_proofs_a_second(config.proofs)
        self._interval = ProofInterval(config.proofs.reprove_every, config.proofs.reprove_every)
        self._until = 0.0
        self._counting = threading.Lock()

    def current(self) -> ProofInterval:
        """Return the current interval. Raises StoreUnavailableError.

        It reads the database, so call it outside of transactions.
        """
        with self._counting:
            if time.monotonic() >= self._until:
                self._count()
            return self._interval

    def _count(self) -> None:
        routine = select(func.count()).where(IN_ROUTINE, Connection.due_at.is_not(None))
        with self._db.read() as db:
            connections = db.scalar(routine) or 0
        before = self._interval
        interval = ProofInterval.for_connections(
            before.configured, connections, self._proofs_a_second
        )
        if interval.seconds not in {before.seconds, interval.configured}:
            logger.warning(
                "proofs.slowed",
                seconds=interval.seconds,
                wanted=interval.configured,
                connections=connections,
            )
        self._interval = interval
        self._until = time.monotonic() + _COUNTED_EVERY


def proofs_a_second(config: ProofConfig) -> int:
    """Return the number of proofs per second that the STS budget allows.

    A full proof makes two calls more than a routine proof. Few proofs make one more call.
    """
    return max(1, config.sts_budget // (config.routine_calls + 2))


def routine_proofs_a_second(config: ProofConfig) -> float:
    """Return the number of routine proofs per second that their share of the STS budget allows.

    The added 0.3 allows for routine proofs that need a full proof.
    """
    return config.sts_budget * ROUTINE_SHARE / (config.routine_calls + 0.3)


def first_after(pauses: tuple[int, ...], since: datetime, tried_at: datetime) -> datetime | None:
    """Return the first of the times `since` + pause that is later than `tried_at`.

    Return None if all of them have passed.
    """
    for seconds in pauses:
        due_at = since + timedelta(seconds=seconds)
        if due_at > tried_at:
            return due_at
    return None


def next_search(
    since: datetime, tried_at: datetime, resumed_at: datetime | None = None
) -> datetime | None:
    """Return the time of the next proof of an unproven role; None when the role is given up.

    `since`: the start of the schedule. `resumed_at`: when the tenant was last resumed. Nothing is
    tried while it is suspended, so the days until the role is given up begin again.
    """
    if soon := first_after(_RETRIES, since, tried_at):
        return soon
    due_at = since + ((tried_at - since) // _HOURLY + 1) * _HOURLY
    began_at = max(since, resumed_at or since)
    return due_at if due_at <= began_at + timedelta(days=SEARCH_DAYS) else None


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


def schedule_next(
    connection: Connection, proof: Proof, interval: ProofInterval, *, restarts: bool
) -> None:
    """Schedule the proof that follows this one. `restarts`: the schedule starts again.

    A verified role that has got its first three proofs has outlived its stack: `stack` is cleared.
    """
    checked_at, status = proof.checked_at, connection.status
    # In the future only if the clock of the process that began the schedule was ahead
    if restarts or connection.due_since is None or connection.due_since > checked_at:
        connection.due_since = checked_at
    connection.due_for, since = Trigger.SCHEDULED, connection.due_since
    if status is ConnectionStatus.PENDING:
        connection.due_at = next_search(since, checked_at, connection.tenant.resumed_at)
        return
    settling = first_after(_SETTLING, since, checked_at)
    verified = status is ConnectionStatus.VERIFIED
    if verified and not settling:
        connection.stack = None  # the role still exists, whatever the stack's last message said
    due_at = next_slot(connection.id, checked_at, interval.seconds)
    access_until = connection.access_until
    # A sum would overflow if access_until is the last possible date, so subtract instead.
    if access_until and checked_at - _LATE < access_until < due_at:
        due_at = access_until + _LATE
    if proof.verdict is Verdict.INCONCLUSIVE:
        sooner: datetime | None = checked_at + interval.pause
    else:
        sooner = settling if verified else first_after(_RETRIES, since, checked_at)
    connection.due_at = min(due_at, sooner or due_at)


def schedule_after_approval(connection: Connection, approved_at: datetime) -> None:
    """Schedule the next proof of a connection that the approval has verified.

    The schedule began with its latest proof, which waited for the approval.
    """
    began_at = connection.due_since or approved_at
    connection.due_at = first_after(_SETTLING, began_at, approved_at) or approved_at
    connection.due_for = Trigger.SCHEDULED
