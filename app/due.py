"""What is due: connections whose role is to be tried by now, claimed a few at a time and proven in the background.

The database says what is due, and whoever carries the work may lose it: a claim moves `due_at` ahead by a lease, so
what nobody finished is due again when the lease is over. A claim is done once: it names the very `due_at` that it
set, and another carrier of the same message finds a later one.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, update

from app import log
from app.access import OnBehalf
from app.audit import Actor
from app.db import Database, now
from app.errors import ConflictError, NotFoundError, SuspendedError
from app.models import Connection, ConnectionStatus, Tenant, TenantStatus
from app.verification import Verification

_log = log.get(__name__)

LEASE = timedelta(minutes=2)  # longer than a proof and its wait for the STS budget take
_WORKER = Actor("worker", None, "background worker")
_AT_REST = (ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED)


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
        """The longest due, at most so many; nobody else gets these until the lease is over."""
        at = now()
        waiting = (
            select(Connection.id, Connection.tenant_id)
            .join(Tenant, Tenant.id == Connection.tenant_id)
            .where(
                Connection.due_at <= at,
                Connection.status.not_in(_AT_REST),
                Tenant.status == TenantStatus.ACTIVE,
            )
            .order_by(Connection.due_at)
        )
        with self._db.read() as db:
            if db.execute(waiting.limit(1)).first() is None:
                return []  # without taking the one lock that SQLite has, again and again
        with self._db.write() as db:
            # Who else claims just now takes others, and waits for nobody.
            locked = waiting.limit(most).with_for_update(of=Connection, skip_locked=True)
            found = db.execute(locked).all()
            lease = at + LEASE
            db.execute(
                update(Connection)
                .where(Connection.id.in_([connection_id for connection_id, _ in found]))
                .values(due_at=lease)
            )
        return [Claim(tenant_id, connection_id, lease) for connection_id, tenant_id in found]

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
        with self._db.write() as db:
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
