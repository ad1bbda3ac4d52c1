"""The audit log's monthly partitions.

A partition contains the events whose ids are from one month (UTC); an id begins with the time.
Partitions are created in advance. A partition is detached when all of its events are old enough.
The detached table still exists, but is no longer part of the log. The operator archives and drops
it. Deputy never deletes an event, and triggers refuse to delete one.

An event whose month has no partition goes to the default partition. So no event is refused because
of its time. The default partition is detached and created again when its newest event is old
enough.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text

from app.errors import ConflictError
from app.ids import first_id_at, time_of
from app.log import logger
from app.store.database import SYSTEM, Database, Session, database_now

_AHEAD = 3  # months whose partitions are created before they begin
_DEFAULT = "audit_events_default"
_TABLES = """
SELECT coalesce(array_agg(relname::text ORDER BY relname) FILTER (WHERE relispartition), '{}'),
    coalesce(array_agg(relname::text ORDER BY relname) FILTER (WHERE NOT relispartition), '{}')
FROM pg_class
WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
AND relname ~ '^audit_events_([0-9]{4}_[0-9]{2}|default(_[0-9_]+)?)$'
"""
_STRAYS = f"SELECT EXISTS (SELECT FROM {_DEFAULT} WHERE id >= :first AND id < :end)"  # noqa: S608
_ALONE = "SELECT pg_try_advisory_xact_lock(hashtext('deputy audit months'))"


class Months(NamedTuple):
    """The names of the log's partitions, and of detached tables that the operator may drop."""

    attached: list[str]
    detached: list[str]
    next_is_made: bool


def partitions(db: Session) -> Months:
    """Return the partitions and the detached tables."""
    attached, detached = db.execute(text(_TABLES)).one()
    next_month = _name(_next(_month(database_now(db))))
    return Months(attached, detached, next_is_made=next_month in attached)


def make_and_detach(database: Database, limit: datetime | None) -> None:
    """Create the missing partitions of the next months, and detach old partitions.

    A partition is detached if all of its events are from before `limit` (None: detach none).
    Several background workers may call this at the same time. If a lock is not free within 100 ms,
    the next call does the rest. Raises StoreUnavailableError.
    """
    try:
        while _step(database, limit):
            pass
    except ConflictError:
        logger.info("audit.months_wait")


def _step(database: Database, limit: datetime | None) -> bool:
    """Create or detach one partition, in a transaction of its own.

    Return False if there is nothing left to do.
    """
    with database.write(SYSTEM) as db:
        # A lock request that waits blocks all later users of the table, and so all issuing.
        db.execute(text("SET LOCAL lock_timeout = '100ms'"))
        if not db.scalar(text(_ALONE)):
            return False  # another background worker is doing it
        if make_next(db):
            return True
        return limit is not None and _detach_oldest(db, partitions(db), limit)


def make_default(db: Session) -> None:
    """Create the default partition."""
    _attach(db, _DEFAULT, "DEFAULT")


def make_next(db: Session) -> bool:
    """Create one missing partition of this month and the next ones; return False if none is."""
    months = partitions(db)
    month = _month(database_now(db))
    for _ in range(1 + _AHEAD):
        name, following = _name(month), _next(month)
        first, end = first_id_at(month), first_id_at(following)
        exists = name in months.attached + months.detached
        # PostgreSQL refuses to attach a month if the default partition has events of that month.
        if not exists and not db.scalar(text(_STRAYS), {"first": first, "end": end}):
            _attach(db, name, f"FOR VALUES FROM ('{first}') TO ('{end}')")
            return True
        month = following
    return False


def _detach_oldest(db: Session, months: Months, limit: datetime) -> bool:
    oldest = months.attached[0]  # the names are sorted, and the default partition is the last
    if oldest < _name(_month(limit)):
        _detach(db, oldest)
        return True
    newest = db.scalar(text(f"SELECT id FROM {_DEFAULT} ORDER BY id DESC LIMIT 1"))  # noqa: S608
    if newest is None or newest >= first_id_at(limit):
        return False
    _detach(db, _DEFAULT)
    name = f"{_DEFAULT}_{time_of(newest):%Y_%m_%d}"
    # Another default partition with this name was detached before, and is not dropped yet
    while name in months.detached:
        name += "_1"
    db.execute(text(f"ALTER TABLE {_DEFAULT} RENAME TO {name}"))
    make_default(db)
    return True


def _attach(db: Session, name: str, values: str) -> None:
    """Create a table, and then attach it as a partition.

    Creating it directly as a partition would take a lock that blocks issuing.
    """
    db.execute(text(f"CREATE TABLE {name} (LIKE audit_events)"))
    # The trigger on audit_events does not run for a TRUNCATE of a partition
    _refuse(db, name, "truncate", "TRUNCATE")
    db.execute(text(f"ALTER TABLE audit_events ATTACH PARTITION {name} {values}"))


def _detach(db: Session, name: str) -> None:
    """Detach a partition, which takes some milliseconds.

    PostgreSQL refuses DETACH … CONCURRENTLY for a table that has a default partition. It removes
    the row triggers of audit_events from the detached table, so the table gets one of its own.
    """
    db.execute(text(f"ALTER TABLE audit_events DETACH PARTITION {name}"))
    _refuse(db, name, "change", "UPDATE OR DELETE")


def _refuse(db: Session, name: str, trigger: str, changes: str) -> None:
    db.execute(
        text(
            f"CREATE OR REPLACE TRIGGER audit_events_refuse_{trigger} BEFORE {changes} ON {name}"
            " FOR EACH STATEMENT EXECUTE FUNCTION deputy_refuse('audit_events is append-only')"
        )
    )


def _month(day: datetime) -> datetime:
    return datetime(day.year, day.month, 1, tzinfo=UTC)


def _next(month: datetime) -> datetime:
    return _month(month + timedelta(days=31))


def _name(month: datetime) -> str:
    return f"audit_events_{month:%Y_%m}"
