"""On PostgreSQL the audit log has a partition for each month (UTC) of its ids, which begin with the
time.

Months are made ahead. A month whose events are all old enough is detached: its table stays, and is
no part of the log any more; the operator archives and drops it. No statement of Deputy's deletes an
event, and triggers refuse one that would. An event whose id is in no month goes to the default
partition, so none is ever refused for its time. The default partition is detached, and made again,
when its newest event is old enough.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text

from app.errors import ConflictError
from app.ids import first_id_at, time_of
from app.log import logger
from app.store.database import SYSTEM, Database, Session, database_now

_AHEAD = 3  # months that are made before they begin
_DEFAULT = "audit_events_default"
_OURS = re.compile(rf"{_DEFAULT}|audit_events_[0-9]{{4}}_[0-9]{{2}}|{_DEFAULT}_[0-9_]+")
_TABLES = """
SELECT relname, relispartition FROM pg_class
WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
AND relname LIKE 'audit_events_%'
ORDER BY relname
"""
_NEWEST_STRAY = f"SELECT id FROM {_DEFAULT} ORDER BY id DESC LIMIT 1"  # noqa: S608  a constant
_STRAYS = f"SELECT EXISTS (SELECT FROM {_DEFAULT} WHERE id >= :first AND id < :end)"  # noqa: S608
# A lock that is waited for holds up all who ask for the table later, and so issuing.
_BRIEFLY = "SET LOCAL lock_timeout = '100ms'"
_ALONE = "SELECT pg_try_advisory_xact_lock(hashtext('deputy audit months'))"


class Months(NamedTuple):
    """What there is of the log. `detached`: tables for the operator."""

    attached: list[str]
    detached: list[str]
    next_is_made: bool


def partitions(db: Session) -> Months:
    """The tables of this PostgreSQL."""
    found = [
        (name, attached) for name, attached in db.execute(text(_TABLES)) if _OURS.fullmatch(name)
    ]
    attached = [name for name, is_attached in found if is_attached]
    detached = [name for name, is_attached in found if not is_attached]
    return Months(
        attached, detached, next_is_made=_name(_next(_month(database_now(db)))) in attached
    )


def make_and_detach(db: Database, limit: datetime | None) -> int:
    """Make what is missing of the next months, and detach those without an event from `limit` on
    (None: no month).

    Returns how many were detached. Any number of background workers may call it at once. If a lock
    is not free within 100 ms, the rest is left to the next call. Raises StoreUnavailableError.
    """
    detached = 0
    try:
        while (done := _step(db, limit)) is not None:
            detached += done
    except ConflictError:
        logger.info("audit.months_wait")
    return detached


def _step(db: Database, limit: datetime | None) -> int | None:
    """Make (0) or detach (1) one partition, in a transaction of its own. None: there is nothing
    left to do.
    """
    with db.write(SYSTEM) as session:
        session.execute(text(_BRIEFLY))
        if not session.scalar(text(_ALONE)):
            return None  # another background worker does it
        months = partitions(session)
        if _make_one(session, months):
            return 0
        return 1 if limit is not None and _detach_one(session, months, limit) else None


def _make_one(db: Session, months: Months) -> bool:
    month = _month(database_now(db))
    for _ in range(1 + _AHEAD):
        first, end = first_id_at(month), first_id_at(_next(month))
        made = _name(month) in (*months.attached, *months.detached)
        # PostgreSQL attaches no month whose events go to the default partition already.
        if not made and not db.scalar(text(_STRAYS), {"first": first, "end": end}):
            _attach(db, _name(month), f"FOR VALUES FROM ('{first}') TO ('{end}')")
            return True
        month = _next(month)
    return False


def _detach_one(db: Session, months: Months, limit: datetime) -> bool:
    for name in months.attached:
        if (
            name != _DEFAULT
            and _next(datetime.strptime(f"{name}+0000", "audit_events_%Y_%m%z")) <= limit
        ):
            _detach(db, name)
            return True
    newest = db.scalar(text(_NEWEST_STRAY))
    if newest is None or newest >= first_id_at(limit):
        return False
    _detach(db, _DEFAULT)
    name = f"{_DEFAULT}_{time_of(newest):%Y_%m_%d}"
    while (
        name in months.detached
    ):  # strays of the same day came again, and the operator has not dropped the first ones
        name += "_1"
    db.execute(text(f"ALTER TABLE {_DEFAULT} RENAME TO {name}"))
    _attach(db, _DEFAULT, "DEFAULT")
    return True


def _attach(db: Session, name: str, values: str) -> None:
    """Made first and attached then: to make it as a partition would take a lock that nothing is
    issued beside.
    """
    db.execute(text(f"CREATE TABLE {name} (LIKE audit_events)"))
    db.execute(
        # the one of audit_events holds for rows of its partitions, and not for their TRUNCATE
        text(
            f"CREATE TRIGGER audit_events_refuse_truncate BEFORE TRUNCATE ON {name}"
            " FOR EACH STATEMENT EXECUTE FUNCTION deputy_refuse('audit_events is append-only')"
        )
    )
    db.execute(text(f"ALTER TABLE audit_events ATTACH PARTITION {name} {values}"))


def _detach(db: Session, name: str) -> None:
    """Not CONCURRENTLY, which PostgreSQL refuses beside a default partition. It takes some
    milliseconds.
    """
    db.execute(text(f"ALTER TABLE audit_events DETACH PARTITION {name}"))


def _month(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next(month: datetime) -> datetime:
    return _month(month + timedelta(days=31))


def _name(month: datetime) -> str:
    return f"audit_events_{month:%Y_%m}"
