"""Housekeeping: what nobody needs any more is deleted, a little at a time, by the background worker.

A registration's row makes a message that comes again no news. CloudFormation gives a request up after an hour, and SQS
a message after 14 days at most, so a row of 30 days ago is asked for by nobody. A worker's heartbeat is kept for a day.
"""

from datetime import timedelta

from sqlalchemy import delete, select

from app import heartbeats
from app.db import SYSTEM, Database, now
from app.models import Registration

EVERY = 900  # seconds between two times, for whoever calls
_KEPT = timedelta(days=30)
_MOST = 10_000  # rows at a time: nearly a million a day
_TOGETHER = 1_000  # rows in one transaction, far from the limit of what one may take


class Housekeeping:
    """May be called by any number of workers, at any moment."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def tidy(self) -> int:
        """Delete a bounded number of old rows; how many that were. Raises StoreUnavailableError."""
        return heartbeats.forget(self._db) + self._registrations()

    def _registrations(self) -> int:
        limit = now() - _KEPT
        oldest = select(Registration.created_at).order_by(Registration.id).limit(1)
        with self._db.read() as db:
            first = db.scalar(oldest)
            if first is None or first >= limit:
                return 0  # without taking the one lock that SQLite has
        # The oldest are the first by id (UUIDv7), so that no index is needed but the one that is there.
        some = (
            select(Registration.id)
            .order_by(Registration.id)
            .limit(_TOGETHER)
            .with_for_update(skip_locked=True)
        )
        old = delete(Registration).where(Registration.id.in_(some), Registration.created_at < limit)
        returning = old.returning(Registration.id).execution_options(synchronize_session=False)
        gone = 0
        while gone < _MOST:
            with self._db.write(SYSTEM) as db:
                some_gone = len(db.execute(returning).all())
            gone += some_gone
            if some_gone < _TOGETHER:
                break
        return gone
