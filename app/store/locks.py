"""Fair locks on PostgreSQL: each is granted in the order in which it was asked for.

Row locks are not fair: a request for a shared lock passes a writer that waits, and of those who
wait for a row that each of them updates, any may be next. So somebody who writes without a pause
could hold up a revocation for as long as they like. These are advisory locks, which end with the
transaction. On SQLite they do nothing: it has one writer at a time.

Every transaction takes its locks in the order of `Lock`, those of one kind in the order of their
numbers, and then locks rows. A lock and what it protects need two statements: a statement does not
see what was committed while it waited.
"""

import enum
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

# Callers share this many locks, so that a family of any size fits into PostgreSQL's table of locks:
# 6,400 by default.
_CALLERS = 1024
_ROWS = 2**31  # a lock's number is a signed integer of four bytes


class Lock(enum.IntEnum):
    """The kinds of locks; the values are the first of the two numbers of an advisory lock."""

    MAKING = 7301  # shared: a key or a link is being made; exclusive: a family must not grow
    CALLER = 7302  # shared: a caller writes; exclusive: it is being revoked
    TENANT = 7303  # the tenant's row
    CONNECTION = 7304  # the connection's row


_SHARE = text("SELECT pg_advisory_xact_lock_shared(:lock, :number)")
_HOLD = text(
    "SELECT pg_advisory_xact_lock(:lock, number) FROM unnest(CAST(:numbers AS integer[])) AS number"
)


def share(db: Session, lock: Lock, subject: UUID | None = None) -> None:
    """Take the lock together with others that share it, until the transaction ends. `MAKING` has
    no subject.
    """
    _execute(db, _SHARE, lock=lock.value, number=_number(lock, subject))


def hold(db: Session, lock: Lock, *subjects: UUID) -> None:
    """Take these locks alone, until the transaction ends."""
    numbers = {_number(lock, subject) for subject in subjects or (None,)}
    _execute(db, _HOLD, lock=lock.value, numbers=sorted(numbers))


def _number(lock: Lock, subject: UUID | None) -> int:
    """From the end of the id, which is random."""
    return 0 if subject is None else subject.int % (_CALLERS if lock is Lock.CALLER else _ROWS)


def _execute(db: Session, statement: TextClause, **values: object) -> None:
    if db.get_bind().dialect.name == "postgresql":
        db.execute(statement, values)
