"""Housekeeping, every 15 minutes in each background worker: old rows go, and rotations advance.

Old registrations, heartbeats, deliveries of webhooks and requests with an Idempotency-Key are
deleted. Audit events older than AUDIT_RETENTION_DAYS leave the log.
"""

import time
from datetime import timedelta
from threading import Event
from typing import Any

from sqlalchemy import ColumnElement, delete, select, true

from app.audit import months
from app.audit.log import ID_AND_TIME
from app.clock import now
from app.idempotency import attempts
from app.ids import first_id_at
from app.onboarding.registration_store import REGISTRATIONS_KEPT
from app.rotation import rotations as rotation
from app.store.database import SYSTEM, Database, database_now
from app.store.models import (
    BackgroundWorker,
    IdempotentRequest,
    Registration,
    WebhookDelivery,
    WebhookEvent,
)
from app.webhooks import retention

EVERY = 900  # seconds between two calls of `tidy`
# Age of a heartbeat at which its row is deleted. Only killed background workers leave their rows.
_SILENT = timedelta(days=1)
_WEBHOOKS_AND_REQUESTS: tuple[tuple[Any, timedelta, Any], ...] = (
    (WebhookDelivery, retention.DELIVERIES_KEPT, retention.HAS_ENDED),
    (WebhookEvent, retention.EVENTS_KEPT, retention.HAS_NO_DELIVERY),
    (IdempotentRequest, attempts.KEPT, true()),
)
_SECONDS = 15.0  # most seconds for the rows of one table in one run
_TOGETHER = 1000  # rows in one transaction


def tidy(database: Database, audit_days: int, end: Event) -> None:
    """Delete and detach old rows and partitions for a bounded time.

    `audit_days`: days for which audit events are kept; 0: all are kept. `end`: set when the
    background worker stops, after which no batch begins. Raises StoreUnavailableError.

    Any number of background workers may call it at once.
    """
    rotation.settle_all(database)
    with database.read() as db:
        # The earlier clock counts: a clock that jumped ahead must not delete recent rows.
        read_at = min(now(), database_now(db))
    _delete_old(database, end, BackgroundWorker, BackgroundWorker.seen_at < read_at - _SILENT)
    # The ids (UUIDv7) limit the search
    limit = read_at - REGISTRATIONS_KEPT
    _delete_old(
        database,
        end,
        Registration,
        Registration.id < first_id_at(limit),
        Registration.created_at < limit,
    )
    for table, kept, is_over in _WEBHOOKS_AND_REQUESTS:
        limit = read_at - kept
        is_old = table.id < first_id_at(limit), table.created_at < limit
        _delete_old(database, end, table, *is_old, is_over)
    retention.delete_ended(database)
    limit = read_at - timedelta(days=audit_days) - ID_AND_TIME
    months.make_and_detach(database, limit if audit_days else None)


def _delete_old(database: Database, end: Event, table: Any, *is_old: ColumnElement[bool]) -> None:
    """Delete the rows for which all conditions are true, in batches."""
    old = select(table.id).where(*is_old)
    batch = old.order_by(table.id).limit(_TOGETHER).with_for_update(skip_locked=True)
    deletion = delete(table).where(table.id.in_(batch), *is_old).returning(table.id)
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until and not end.is_set():
        with database.write(SYSTEM) as db:
            if len(db.execute(deletion).all()) < _TOGETHER:
                return
