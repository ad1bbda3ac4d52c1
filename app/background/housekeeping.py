"""Housekeeping, every 15 minutes in each background worker.

Old registrations and old heartbeats are deleted. Audit events older than
AUDIT_RETENTION_DAYS leave the log. Rotations are advanced.

Registrations are kept for a time, because a row marks a message as handled, and SQS may deliver the
message again.
"""

import time
from datetime import datetime, timedelta
from threading import Event
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import InstrumentedAttribute

from app.audit import months
from app.audit.log import ID_AND_TIME
from app.clock import now
from app.health import heartbeats
from app.ids import first_id_at
from app.rotation import rotations as rotation
from app.store.database import SYSTEM, Database, database_now
from app.store.models import AuditEvent, Configuration, Registration

EVERY = 900  # seconds between two calls of `tidy`
# CloudFormation gives up a request after an hour, and SQS keeps a message for 14 days at most
_KEPT = timedelta(days=30)
_SECONDS = 15.0  # most seconds for the rows of one table in one run
_TOGETHER = 200  # rows in one transaction: on SQLite all other writers wait for it
_PAUSE = 19  # a pause lasts 19 times as long as the transaction: others get 95 % of the time


def tidy(db: Database, audit_days: int, end: Event) -> None:
    """Delete and detach old rows and partitions for a bounded time.

    `audit_days`: days for which audit events are kept; 0: all are kept. `end`: set when the
    background worker stops, which ends a pause. Raises StoreUnavailableError.

    Any number of background workers may call it at once.
    """
    rotation.settle_all(db)
    heartbeats.delete_old(db)
    _delete_oldest(db, Registration, Registration.created_at, now() - _KEPT, end)
    limit = None
    if audit_days:
        with db.read() as session:
            # The earlier clock counts: a clock that jumped ahead must not delete recent events.
            limit = min(now(), database_now(session)) - timedelta(days=audit_days) - ID_AND_TIME
    if db.engine.dialect.name == "postgresql":
        months.make_and_detach(db, limit)
        return
    _set_retention(db, audit_days)
    if limit:
        _delete_oldest(db, AuditEvent, AuditEvent.at, limit, end)


def _set_retention(db: Database, days: int) -> None:
    """Tell SQLite's triggers for how long events are kept, if that has changed."""
    with db.read() as session:
        if session.scalar(select(Configuration.audit_kept_days)) == days:
            return  # without taking SQLite's only write lock
    with db.write(SYSTEM) as session:
        session.execute(update(Configuration).values(audit_kept_days=days))


def _delete_oldest(
    db: Database, table: Any, column: InstrumentedAttribute[datetime], limit: datetime, end: Event
) -> None:
    """Delete the rows from before `limit` in batches. Their ids (UUIDv7) limit the search."""
    with db.read() as session:
        first = session.scalar(select(column).order_by(table.id).limit(1))
        if first is None or first >= limit:
            return  # without taking SQLite's only write lock
    batch = select(table.id).where(table.id < first_id_at(limit)).order_by(table.id)
    ids = batch.limit(_TOGETHER).with_for_update(skip_locked=True)
    old = delete(table).where(table.id.in_(ids), column < limit).returning(table.id)
    until = time.monotonic() + _SECONDS
    while (began := time.monotonic()) < until:
        with db.write(SYSTEM) as session:
            deleted = session.execute(old, execution_options={"synchronize_session": False}).all()
        over = time.monotonic()
        if len(deleted) < _TOGETHER or end.wait(min((over - began) * _PAUSE, until - over)):
            return
