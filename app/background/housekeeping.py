"""Housekeeping: every 15 minutes a background worker deletes registrations older than 30 days and old heartbeats, and
takes rotations further.

A registration's row marks a message that was acted upon, for when SQS delivers it again. CloudFormation gives up a
request after an hour, and SQS keeps a message for 14 days at most, so after 30 days no message needs the row.
"""

from datetime import timedelta

from sqlalchemy import delete, select

from app.clock import now
from app.health import heartbeats
from app.store.database import SYSTEM, Database
from app.store.models import Registration
from app.tenants import rotation

EVERY = 900  # seconds between two calls of `tidy`
_KEPT = timedelta(days=30)
_MOST = 10_000  # rows at a time: nearly a million a day
_TOGETHER = 1_000  # rows in one transaction, far from the limit of what one may take


def tidy(db: Database) -> int:
    """Delete a bounded number of old rows, and return how many. Raises StoreUnavailableError.

    Any number of background workers may call it at once.
    """
    rotation.settle_all(db)
    return heartbeats.delete_old(db) + _registrations(db)


def _registrations(db: Database) -> int:
    limit = now() - _KEPT
    oldest = select(Registration.created_at).order_by(Registration.id).limit(1)
    with db.read() as session:
        first = session.scalar(oldest)
        if first is None or first >= limit:
            return 0  # without taking SQLite's one write lock
    # The oldest rows have the lowest ids (UUIDv7), so the primary key finds them.
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
