"""The audit log's monthly partitions on PostgreSQL.

Each partition has a month (UTC) of ids, which begin with the time. Partitions are created ahead. A
month whose events are all old enough is detached. Its table stays, but is no longer part of the
log; the operator archives and drops it. No statement of Deputy deletes an event, and triggers
refuse such a statement.

An event whose id is in no month goes to the default partition, so none is ever refused for its
time. The default partition is detached and created again when its newest event is old enough.
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
SELECT relname, relispartition FROM pg_class
WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
AND relname ~ '^audit_events_([0-9]{4}_[0-9]{2}|default(_[0-9_]+)?)$'
ORDER BY relname
"""
_NEWEST_STRAY = f"SELECT id FROM {_DEFAULT} ORDER BY id DESC LIMIT 1"  # noqa: S608  a constant
_STRAYS = f"SELECT EXISTS (SELECT FROM {_DEFAULT} WHERE id >= :first AND id < :end)"  # noqa: S608
# A waiting lock request blocks all later users of the table, and so issuing.
_BRIEFLY = "SET LOCAL lock_timeout = '100ms'"
_ALONE = "SELECT pg_try_advisory_xact_lock(hashtext('deputy audit months'))"


class Months(NamedTuple):
    """The partitions of the log, and the detached tables, which are left to the operator."""

    attached: list[str]
    detached: list[str]
    next_is_made: bool


def partitions(db: Session) -> Months:
    """Return the partitions and detached tables of this PostgreSQL."""
    attached: list[str] = []
    detached: list[str] = []
    for name, is_attached in db.execute(text(_TABLES)):
        (attached if is_attached else detached).append(name)
    next_month = _name(_next(_month(database_now(db))))
    return Months(attached, detached, next_is_made=next_month in attached)


def make_and_detach(db: Database, limit: datetime | None) -> int:
    """Create the missing partitions of the next months, and detach the old ones.

    A partition is detached if all its events are from before `limit` (None: detach none). Returns
    the number of detached partitions. Any number of background workers may call it at once. If a
    lock is not free within 100 ms, the rest is left to the next call. Raises StoreUnavailableError.
    """
    detached = 0
    try:
        while (done := _step(db, limit)) is not None:
            detached += done
    except ConflictError:
        logger.info("audit.months_wait")
    return detached


def _step(db: Database, limit: datetime | None) -> int | None:
    """Create (0) or detach (1) one partition, in a transaction of its own.

    Returns None when there is nothing left to do.
    """
    with db.write(SYSTEM) as session:
        session.execute(text(_BRIEFLY))
        if not session.scalar(text(_ALONE)):
            return None  # another background worker does it
        months = partitions(session)
        if _make_next(session, months):
            return 0
        return 1 if limit is not None and _detach_oldest(session, months, limit) else None


def _make_next(db: Session, months: Months) -> bool:
    month = _month(database_now(db))
    for _ in range(1 + _AHEAD):
        name, following = _name(month), _next(month)
        first, end = first_id_at(month), first_id_at(following)
        exists = name in months.attached or name in months.detached
        # PostgreSQL does not attach a month that has events in the default partition.
        if not exists and not db.scalar(text(_STRAYS), {"first": first, "end": end}):
            _attach(db, name, f"FOR VALUES FROM ('{first}') TO ('{end}')")
            return True
        month = following
    return False


def _detach_oldest(db: Session, months: Months, limit: datetime) -> bool:
    # In the order of time, and the default partition last
    for name in months.attached:
        if name < _name(_month(limit)):
            _detach(db, name)
            return True
    newest = db.scalar(text(_NEWEST_STRAY))
    if newest is None or newest >= first_id_at(limit):
        return False
    _detach(db, _DEFAULT)
    name = f"{_DEFAULT}_{time_of(newest):%Y_%m_%d}"
    # An earlier table has strays of the same day, and is not dropped yet
    while name in months.detached:
        name += "_1"
    db.execute(text(f"ALTER TABLE {_DEFAULT} RENAME TO {name}"))
    _attach(db, _DEFAULT, "DEFAULT")
    return True


def _attach(db: Session, name: str, values: str) -> None:
    """Create a table and attach it as a partition.

    Creating it as a partition would take a lock that blocks issuing.
    """
    db.execute(text(f"CREATE TABLE {name} (LIKE audit_events)"))
    db.execute(
        # the trigger of audit_events does not cover TRUNCATE of a partition
        text(
            f"CREATE TRIGGER audit_events_refuse_truncate BEFORE TRUNCATE ON {name}"
            " FOR EACH STATEMENT EXECUTE FUNCTION deputy_refuse('audit_events is append-only')"
        )
    )
    db.execute(text(f"ALTER TABLE audit_events ATTACH PARTITION {name} {values}"))


def _detach(db: Session, name: str) -> None:
    """Detach a partition, which takes some milliseconds.

    Not CONCURRENTLY: PostgreSQL refuses that beside a default partition.
    """
    db.execute(text(f"ALTER TABLE audit_events DETACH PARTITION {name}"))


def _month(day: datetime) -> datetime:
    return day.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next(month: datetime) -> datetime:
    return _month(month + timedelta(days=31))


def _name(month: datetime) -> str:
    return f"audit_events_{month:%Y_%m}"
