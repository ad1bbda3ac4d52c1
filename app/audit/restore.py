"""Record that a backup was restored, and invalidate what processes keep in memory."""

import secrets
from datetime import datetime

from sqlalchemy import select, update

from app.audit import Actor, actions
from app.store.database import SYSTEM, Database
from app.store.models import AuditEvent, Configuration


def record_restore(database: Database, actor: Actor) -> datetime | None:
    """Record that a backup was restored, and invalidate what processes keep in memory.

    Return the time of the newest event in the backup. Raises StoreUnavailableError.
    """
    of_backup = AuditEvent.action != actions.DATABASE_RESTORED  # the operator may repeat this
    with database.write(SYSTEM) as db:
        events = select(AuditEvent.at).where(of_backup).order_by(AuditEvent.id.desc())
        newest = db.scalar(events.limit(1))
        # A process may have entries that were read at higher counters than the backup's. These
        # counters must not be used again, even if the same backup is restored twice. So the
        # increment is random.
        away = 2**40 + secrets.randbelow(2**40)
        db.execute(
            update(Configuration).values(revocation_counter=Configuration.revocation_counter + away)
        )
        reaches = newest.isoformat(timespec="seconds") if newest else None
        actions.DATABASE_RESTORED.record(db, actor, {"reaches": reaches})
        return newest
