"""What is due: connections whose role is to be tried by now, claimed a few at a time and proven in the background.

A claim is shared out among tenants, so that thousands of pending roles of one tenant do not hold up another's first
proof. Connections that were never tried go before those that were.

The database says what is due, and whoever carries the work may lose it: a claim moves `due_at` ahead by a lease, so
what nobody finished is due again when the lease is over. A claim is done once: it names the very `due_at` that it
set, and another carrier of the same message finds a later one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, select, update
from sqlalchemy.orm import Session

from app import log
from app.access.callers import OnBehalf
from app.audit.events import Actor
from app.clock import now
from app.connections.proof import Verification
from app.errors import ConflictError, NotFoundError, SuspendedError
from app.store.database import SYSTEM, Database
from app.store.models import Connection, ConnectionStatus, Tenant, TenantStatus

_log = log.get(__name__)

LEASE = timedelta(minutes=2)  # longer than a proof and its wait for the STS budget take
_WORKER = Actor("worker", None, "background worker")
_AT_REST = (ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED)
_SHARE = 8  # one tenant gets an eighth of a claim while others wait
_AGAIN = 4  # a quarter of a claim is kept for connections that were tried before, or they could wait without end
_WINDOW = 8  # times the size of a claim: how many due rows one look reads
_LOOKS = 4  # the first may show a single tenant's rows alone; each further one leaves out the tenants seen so far


@dataclass(frozen=True, slots=True)
class Claim:
    """One connection to prove. `lease`: the `due_at` that this claim set."""

    tenant_id: UUID
    connection_id: UUID
    lease: datetime


class Due:
    """Claims what is due and proves it."""

    def __init__(self, db: Database, verification: Verification) -> None:
        self._db = db
        self._verification = verification

    def claim(self, most: int) -> list[Claim]:
        """Due connections, at most so many; no other claim gets these until the lease is over.

        The longest due first, but shared out among tenants, and those that were never tried before the others.
        """
        at = now()
        with self._db.read() as db:  # without taking the one lock that SQLite has, again and again
            chosen = _shared_out(db, _waiting(at), most)
        if not chosen:
            return []
        lease = at + LEASE
        with self._db.write(SYSTEM) as db:
            # A claim at the same moment takes the rows that are not locked, and waits for none.
            locked = _waiting(at).where(Connection.id.in_(chosen)).with_for_update(of=Connection, skip_locked=True)
            found = sorted(db.execute(locked), key=lambda row: chosen.index(row.id))
            db.execute(update(Connection).where(Connection.id.in_([row.id for row in found])).values(due_at=lease))
        return [Claim(row.tenant_id, row.id, lease) for row in found]

    def oldest(self) -> datetime | None:
        """Since when the connection is due that has waited longest; None when none is due."""
        at = now()
        with self._db.read() as db:
            return db.scalar(_waiting(at).with_only_columns(Connection.due_at).limit(1))

    def prove(self, claim: Claim) -> bool:
        """Prove one; False when somebody else did, or it is no longer there to be proven."""
        if not self._begin(claim):
            return False
        who = OnBehalf(_WORKER, claim.tenant_id)
        try:
            self._verification.verify(who, claim.tenant_id, claim.connection_id)
        except (NotFoundError, SuspendedError, ConflictError) as error:
            _log.info("proof.dropped", connection_id=str(claim.connection_id), why=error.code)
            return False
        return True

    def _begin(self, claim: Claim) -> bool:
        """Whether this claim is the connection's latest. From here on it is used up."""
        with self._db.write(SYSTEM) as db:
            begun = db.execute(
                update(Connection)
                .where(
                    Connection.id == claim.connection_id,
                    Connection.tenant_id == claim.tenant_id,
                    Connection.due_at == claim.lease,
                )
                .values(due_at=max(now(), claim.lease) + LEASE)
                .returning(Connection.id)
            ).all()
        return bool(begun)


def _waiting(at: datetime) -> Select[UUID, UUID]:
    return (
        select(Connection.id, Connection.tenant_id)
        .join(Tenant, Tenant.id == Connection.tenant_id)
        .where(
            Connection.due_at <= at,
            Connection.status.not_in(_AT_REST),
            Tenant.status == TenantStatus.ACTIVE,
        )
        .order_by(Connection.due_at)
    )


def _shared_out(db: Session, waiting: Select[UUID, UUID], most: int) -> list[UUID]:
    """The ids of at most so many waiting connections. No tenant gets more than its share unless places stay free."""
    first, more_first = _shares(db, waiting, Connection.proof_id.is_(None), most)
    again, more_again = _shares(db, waiting, Connection.proof_id.is_not(None), most)
    kept_for_again = min(len(again), max(1, most // _AGAIN))
    in_order = (*first[: most - kept_for_again], *again, *first, *more_first, *more_again)
    return [row.id for row in dict.fromkeys(in_order)][:most]


def _shares(
    db: Session, waiting: Select[UUID, UUID], among: ColumnElement[bool], most: int
) -> tuple[Sequence[Row[UUID, UUID]], Sequence[Row[UUID, UUID]]]:
    """Rows within their tenants' shares, and rows beyond them. Reads a bounded number of rows, however many are due."""
    within: list[Row[UUID, UUID]] = []
    beyond: list[Row[UUID, UUID]] = []
    seen: set[UUID] = set()
    for _ in range(_LOOKS):
        look = waiting.where(among, Connection.tenant_id.not_in(seen)).limit(most * _WINDOW)
        rows = db.execute(look).all()
        taken: dict[UUID, int] = {}
        for row in rows:
            taken[row.tenant_id] = taken.get(row.tenant_id, 0) + 1
            in_share = taken[row.tenant_id] <= max(1, most // _SHARE)
            (within if in_share else beyond).append(row)
        seen |= taken.keys()
        if len(rows) < most * _WINDOW or len(within) >= most:
            break
    return within, beyond
