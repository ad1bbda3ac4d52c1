"""Heartbeats: every 15 seconds each background worker writes its state into its row.

Times are the database's, because the clocks of machines differ. The row also says by how much the
background worker's clock differs.
"""

import os
import socket
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from cachetools import TTLCache
from sqlalchemy import delete, func, select

from app.clock import now
from app.ids import new_id
from app.store.database import SYSTEM, Database, Session, database_now
from app.store.models import BackgroundWorker

BEAT_SECONDS = 15.0
_LIVE = timedelta(minutes=1)  # for so long after a heartbeat, a background worker counts as live
# How many failed messages are kept in memory, and for how many seconds. SQS delivers a message four
# more times, a minute apart, and then moves it to the dead-letter queue.
_FAILURES, _FAILURE_SECONDS = 1000, 300


def clock_ahead(db: Session) -> float:
    """Return the least number of seconds by which our clock is ahead of the database's.

    The number is negative when our clock is behind. The database reads its clock between our two
    readings, so a difference within that interval counts as none.
    """
    before = now()
    theirs = database_now(db)
    after = now()
    return max((before - theirs).total_seconds(), 0.0) + min((after - theirs).total_seconds(), 0.0)


class QueueState:
    """The registration queue's state, as far as this process can tell.

    Only CloudWatch knows the age of the queue's oldest message. A background worker knows when
    newly delivered messages were sent, when it received none, and which messages it could not
    answer.
    """

    def __init__(self) -> None:
        self.heard_at: datetime | None = None
        self._lock = threading.Lock()
        self._unanswered: TTLCache[str, datetime] = TTLCache(_FAILURES, _FAILURE_SECONDS)

    @property
    def unanswered_at(self) -> datetime | None:
        with self._lock:
            self._unanswered.expire()
            return min(self._unanswered.values(), default=None)

    def received(self, first_shown: dict[str, datetime]) -> None:
        """Note that the queue answered.

        `first_shown`: the time at which each newly delivered message was sent, by message id.
        """
        self.heard_at = min(first_shown.values(), default=now())
        # A message counts as unanswered until it is handled, even if other threads meanwhile find
        # the queue empty.
        with self._lock:
            self._unanswered.update(first_shown)

    def handled(self, message_id: str, unanswered: datetime | None) -> None:
        """Note that a message was handled.

        `unanswered`: when the message was sent, or None if SQS won't deliver it again.
        """
        with self._lock:
            if unanswered is None:
                self._unanswered.pop(message_id, None)
            else:
                self._unanswered[message_id] = unanswered


@dataclass
class Heartbeat:
    """A background worker's own row."""

    _db: Database
    _queue_state: QueueState
    _id: UUID = field(default_factory=new_id)
    _started_at: datetime | None = None

    def beat(self) -> None:
        """Write the row. Raises StoreUnavailableError."""
        with self._db.read() as db:
            ahead, beat_at = clock_ahead(db), database_now(db)
        self._started_at = self._started_at or beat_at
        row = BackgroundWorker(
            id=self._id,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            started_at=self._started_at,
            seen_at=beat_at,
            clock_ahead=ahead,
            heard_at=self._queue_state.heard_at,
            unanswered_at=self._queue_state.unanswered_at,
        )
        with self._db.write(SYSTEM) as db:
            db.merge(row)

    def end(self) -> None:
        """Delete the row when this background worker ends. Raises StoreUnavailableError."""
        with self._db.write(SYSTEM) as db:
            db.execute(delete(BackgroundWorker).where(BackgroundWorker.id == self._id))


def live_workers(db: Session) -> list[BackgroundWorker]:
    """Return the background workers with a heartbeat in the last minute, the latest first."""
    live = select(BackgroundWorker).where(BackgroundWorker.seen_at > database_now(db) - _LIVE)
    return list(db.scalars(live.order_by(BackgroundWorker.seen_at.desc())))


def oldest_unanswered(db: Session) -> datetime | None:
    """Return the time since which a stack's message may be unanswered.

    All messages that were sent before `heard_at` were received; later ones may be in the queue.
    Returns None if no background worker has asked the queue.
    """
    heard_at = db.scalar(select(func.max(BackgroundWorker.heard_at)))
    times = [heard_at, *(worker.unanswered_at for worker in live_workers(db))]
    return min(filter(None, times), default=None)
