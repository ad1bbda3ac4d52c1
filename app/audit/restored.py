"""Invalidation of every process's memory after a restore from a backup."""

import secrets
from datetime import datetime

from sqlalchemy import select, update

from app.audit import actions
from app.audit.events import Actor
from app.store.database import SYSTEM, Database
from app.store.models import AuditEvent, Configuration


def record_restore(db: Database, actor: Actor) -> datetime | None:
    """Record that the database is an older copy, and invalidate every process's memory.

    Returns when the copy's newest event was made. Raises StoreUnavailableError.
    """
    with db.write(SYSTEM) as session:
        newest = session.scalar(select(AuditEvent.at).order_by(AuditEvent.id.desc()).limit(1))
        # A process that ran after the backup has memory of higher revocation counters. Their
        # numbers must never be used again, also when the same copy is restored twice.
        away = 2**40 + secrets.randbelow(2**40)
        session.execute(
            update(Configuration).values(revocation_counter=Configuration.revocation_counter + away)
        )
        reaches = newest.isoformat(timespec="seconds") if newest else None
        actions.DATABASE_RESTORED.record(session, actor, {"reaches": reaches})
        return newest
