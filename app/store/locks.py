"""Fair locks on PostgreSQL, granted in the order in which transactions requested them.

PostgreSQL's row locks are not fair. A request for a shared lock overtakes a transaction that waits
for an exclusive one. When several transactions wait to update a row, any of them may be next. So a
client that writes without a pause could delay a revocation without limit.

These locks are advisory locks, which PostgreSQL releases at the end of the transaction. On SQLite
the functions do nothing, because SQLite has one writer at a time.

Every transaction takes its advisory locks first, in the order of `Lock` and then of the lock's
number, and locks rows afterwards. Take a lock in one statement, and read what it protects in the
next: a statement does not see what was committed while it waited.
"""

import enum
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

# All callers share this number of locks. The callers of a family of any size therefore fit into
# PostgreSQL's lock table, which has 6,400 entries by default.
_CALLERS = 1024
_ROWS = 2**31  # a lock's number is a signed integer of four bytes


class Lock(enum.IntEnum):
    """The kinds of locks. The value is the first of the advisory lock's two numbers."""

    MAKING = 7301  # shared: creates a key or a link; exclusive: keeps families from growing
    CALLER = 7302  # shared: a caller writes; exclusive: the caller is being revoked
    TENANT = 7303  # protects the tenant's row
    CONNECTION = 7304  # protects the connection's row


_NUMBERS = "(:lock, number) FROM unnest(CAST(:numbers AS integer[])) AS number"
_SHARE = text(f"SELECT pg_advisory_xact_lock_shared{_NUMBERS}")
_HOLD = text(f"SELECT pg_advisory_xact_lock{_NUMBERS}")


def share(db: Session, lock: Lock, *subjects: UUID) -> None:
    """Take the locks on these subjects in shared mode, until the transaction ends.

    `MAKING` is a single lock, without a subject.
    """
    _take(db, _SHARE, lock, subjects)


def hold(db: Session, lock: Lock, *subjects: UUID) -> None:
    """Take the locks on these subjects in exclusive mode, until the transaction ends."""
    _take(db, _HOLD, lock, subjects)


def _take(db: Session, statement: TextClause, lock: Lock, subjects: tuple[UUID, ...]) -> None:
    """Take the locks. Their second numbers are from the random last bits of the subjects' ids."""
    if db.get_bind().dialect.name == "postgresql":
        most = _CALLERS if lock is Lock.CALLER else _ROWS
        numbers = sorted({subject.int % most for subject in subjects}) or [0]
        db.execute(statement, {"lock": lock.value, "numbers": numbers})
