"""Housekeeping: what nobody needs any more is deleted, a little at a time, by the background worker.

A registration's row makes a message that comes again no news. CloudFormation gives a request up after an hour, and SQS
a message after 14 days at most, so a row of 30 days ago is asked for by nobody. A worker's heartbeat is kept for a day.
"""

from datetime import timedelta

from sqlalchemy import delete, select

from app.clock import now
from app.health import heartbeats
from app.store.database import SYSTEM, Database
from app.store.models import Registration

EVERY = 900  # seconds between two times, for whoever calls
_KEPT = timedelta(days=30)
_MOST = 10_000  # rows at a time: nearly a million a day
_TOGETHER = 1_000  # rows in one transaction, far from the limit of what one may take


def tidy(db: Database) -> int:
    """Delete a bounded number of old rows; how many that were. Raises StoreUnavailableError.

    Any number of workers may call it, at any moment.
    """
    return heartbeats.forget(db) + _registrations(db)


def _registrations(db: Database) -> int:
    limit = now() - _KEPT
    oldest = select(Registration.created_at).order_by(Registration.id).limit(1)
    with db.read() as session:
        first = session.scalar(oldest)
        if first is None or first >= limit:
            return 0  # without taking the one lock that SQLite has
    # The oldest are the first by id (UUIDv7), so that no index is needed but the one that is there.
    some = select(Registration.id).order_by(Registration.id).limit(_TOGETHER).with_for_update(skip_locked=True)
    old = delete(Registration).where(Registration.id.in_(some), Registration.created_at < limit)
    returning = old.returning(Registration.id).execution_options(synchronize_session=False)
    gone = 0
    while gone < _MOST:
        with db.write(SYSTEM) as session:
            some_gone = len(session.execute(returning).all())
        gone += some_gone
        if some_gone < _TOGETHER:
            break
    return gone
