"""Fair locks on PostgreSQL, which are granted in the order of requests.

PostgreSQL's row locks are not fair. A request for a shared lock passes a writer that waits. When
several transactions wait to update a row, any of them may be next. So a client that writes without
a pause could delay a revocation without limit.

These are advisory locks, which end with the transaction. On SQLite they do nothing, because it has
one writer at a time.

Every transaction takes its locks in the order of `Lock`, then of their numbers, and then locks
rows. Take the lock and read what it protects in two statements: a statement does not see what was
committed while it waited.
"""

import enum
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

# Callers share this many locks. So a family of any size fits into PostgreSQL's lock table, which
# has 6,400 entries by default.
_CALLERS = 1024
_ROWS = 2**31  # a lock's number is a signed integer of four bytes


class Lock(enum.IntEnum):
    """The kinds of locks. The value is the first number of the advisory lock."""

    MAKING = 7301  # shared: a key or a link is being made; exclusive: a family must not grow
    CALLER = 7302  # shared: a caller writes; exclusive: it is being revoked
    TENANT = 7303  # the tenant's row
    CONNECTION = 7304  # the connection's row


_SHARE = text("SELECT pg_advisory_xact_lock_shared(:lock, :number)")
_HOLD = text(
    "SELECT pg_advisory_xact_lock(:lock, number) FROM unnest(CAST(:numbers AS integer[])) AS number"
)


def share(db: Session, lock: Lock, subject: UUID | None = None) -> None:
    """Take the lock in shared mode, until the transaction ends.

    `MAKING` has no subject.
    """
    _execute(db, _SHARE, lock=lock.value, number=_number(lock, subject))


def hold(db: Session, lock: Lock, *subjects: UUID) -> None:
    """Take these locks in exclusive mode, until the transaction ends."""
    numbers = {_number(lock, subject) for subject in subjects or (None,)}
    _execute(db, _HOLD, lock=lock.value, numbers=sorted(numbers))


def _number(lock: Lock, subject: UUID | None) -> int:
    """Return the lock's number, from the end of the id, which is random."""
    return 0 if subject is None else subject.int % (_CALLERS if lock is Lock.CALLER else _ROWS)


def _execute(db: Session, statement: TextClause, **values: object) -> None:
    if db.get_bind().dialect.name == "postgresql":
        db.execute(statement, values)
