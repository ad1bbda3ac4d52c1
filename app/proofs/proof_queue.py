"""The proof queue: claim due connections, a few at a time, and prove them in the background.

The queue is in the database. A claim sets `due_at` to the end of a lease, so a connection whose
claim is lost becomes due again when the lease expires. A claim can be used once: it contains the
`due_at` that it set, and the first process that uses the claim changes `due_at`.

There are two queues. The urgent queue is for first proofs, searches, stacks' messages and refused
sessions. Connections that were never tried come first in it. The routine queue is for the scheduled
proofs of proven roles. Tenants share each claim, so one tenant's thousands of roles do not delay
the proofs of another tenant. Within a share, the connections that have been due longest come first.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, func, select, true, update

from app.clock import now
from app.errors import AccountClosedError, ConflictError, NotFoundError, SuspendedError
from app.health.checks import LATE, HealthFinding, ok, warning
from app.identity import WORKER, SystemPrincipal
from app.log import logger
from app.proofs.schedule import RoutineInterval, next_slot
from app.proofs.verification import Verification
from app.store.database import SYSTEM, Database, Session
from app.store.models import (
    IN_ROUTINE,
    URGENT,
    Connection,
    ConnectionStatus,
    Tenant,
    TenantStatus,
    Trigger,
)

# Longer than a proof takes, with its wait for the STS budget
LEASE = timedelta(seconds=LATE)
# The request that creates or resumes a connection also proves it. If that request never ends, a
# background worker proves the connection after this time.
REQUEST_LEASE = timedelta(seconds=30)
_AT_REST = (ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED)
# `has` makes an EXISTS. With a join, the planner may read the tenants' table first, instead of the
# index of due rows. Routine claims do not check the tenant: every claim would read all due
# connections of a suspended tenant again. `prove` moves those connections to their next slot.
_ACTIVE = and_(URGENT, Connection.tenant.has(Tenant.status == TenantStatus.ACTIVE))
_QUEUES = {"urgent": _ACTIVE, "routine": IN_ROUTINE}
_SHARE = 8  # a tenant gets an eighth of a claim while other tenants wait
# A quarter of a claim is reserved for connections that were tried before. Otherwise they could wait
# forever.
_AGAIN = 4
_ROWS = 8  # rows that one query reads for each connection of a claim
# Maximum number of queries for a claim. Each may return rows of one tenant only, and leaves out the
# tenants of the earlier ones. So seven tenants with long backlogs leave room for an eighth.
_LOOKS = _SHARE

_Row = Row[UUID, UUID]  # connection id, tenant id


class Claim(NamedTuple):
    """A claim on one connection to prove. `lease`: the `due_at` that this claim set."""

    tenant_id: UUID
    connection_id: UUID
    lease: datetime


@dataclass
class ProofQueue:
    """Claims connections that are due, and proves them.

    `_urgent` and `_routine` prove the connections of each queue, within its STS budget.
    """

    _db: Database
    interval: RoutineInterval
    _urgent: Verification
    _routine: Verification

    def claim(self, most: int) -> list[Claim]:
        """Claim at most `most` urgent connections.

        No other claim gets them during the lease. Connections that were never tried come first,
        then those that have been due longest. A tenant gets more than its share only if the other
        tenants do not fill the claim.
        """
        due = _due(_ACTIVE)
        with self._db.read() as db:  # most reads return nothing, and need no write lock
            first, more_first = _shares(db, due.where(Connection.proof_id.is_(None)), most)
            again, more_again = _shares(db, due.where(Connection.proof_id.is_not(None)), most)
        kept_for_again = min(len(again), max(1, most // _AGAIN))
        return self._lease(
            (*first[: most - kept_for_again], *again, *first, *more_first, *more_again), most
        )

    def claim_routine(self, most: int) -> list[Claim]:
        """Claim at most `most` connections that are due for a routine proof.

        The tenants' shares are as in `claim`.
        """
        with self._db.read() as db:
            within, beyond = _shares(db, _due(IN_ROUTINE), most)
        return self._lease((*within, *beyond), most)

    def _lease(self, rows: Iterable[_Row], most: int) -> list[Claim]:
        chosen = [row.id for row in dict.fromkeys(rows)][:most]
        if not chosen:
            return []
        lease = now() + LEASE
        with self._db.write(SYSTEM) as db:
            # Rows that a concurrent claim has locked are skipped, so claims do not wait for each
            # other.
            locked = (
                _due(true())
                .where(Connection.id.in_(chosen))
                .with_for_update(of=Connection, skip_locked=True)
            )
            claimed = sorted(db.execute(locked), key=lambda row: chosen.index(row.id))
            own = Connection.id.in_([row.id for row in claimed])
            db.execute(update(Connection).where(own).values(due_at=lease))
        return [Claim(row.tenant_id, row.id, lease) for row in claimed]

    def backlog(self) -> dict[str, int]:
        """Return the number of due connections in each queue."""
        numbers = {}
        with self._db.read() as db:
            for name, queue in _QUEUES.items():
                due = _due(queue).order_by(None).with_only_columns(func.count())
                numbers[name] = db.scalar(due) or 0
        return numbers

    def oldest_due(self) -> datetime | None:
        """Return the earliest `due_at` of the due connections; None if none is due."""
        oldest: list[datetime | None] = []
        with self._db.read() as db:
            for queue in _QUEUES.values():
                oldest += db.scalars(_due(queue).with_only_columns(Connection.due_at).limit(1))
        return min(filter(None, oldest), default=None)

    def finding(self) -> HealthFinding:
        """Return the finding for readiness: how often each connection is proven."""
        interval = self.interval.current()
        summary = (
            f"Connections: {interval.connections}. Each is proven every {interval.seconds} s;"
            f" DEPUTY_REPROVE_EVERY is {interval.configured} s."
        )
        if interval.seconds > interval.configured:
            return warning(summary, "Raise DEPUTY_STS_BUDGET (routine proofs get half of it).")
        return ok(summary)

    def prove(self, claim: Claim) -> bool:
        """Prove the claim's connection.

        Returns False if the claim was already used, or if the connection can't be proven any more.
        """
        row = self._use_up(claim)
        if row is None:
            return False
        trigger, urgent, lease = row
        verification = self._urgent if urgent else self._routine
        principal = SystemPrincipal(WORKER, claim.tenant_id)
        try:
            verification.verify(principal, claim.tenant_id, claim.connection_id, trigger=trigger)
        except (NotFoundError, SuspendedError, ConflictError) as error:
            # An urgent connection in a closed account also waits for its next slot. The account
            # stays closed for long, and a tenant may have thousands of roles in it.
            if not urgent or isinstance(error, AccountClosedError):
                slot = next_slot(claim.connection_id, now(), self.interval.current().seconds)
                own = update(Connection).filter_by(id=claim.connection_id, due_at=lease)
                with self._db.write(SYSTEM) as db:
                    db.execute(own.values(due_at=slot))
            logger.info("proof.dropped", connection_id=str(claim.connection_id), why=error.code)
            return False
        return True

    def _use_up(self, claim: Claim) -> Row[Trigger, bool, datetime | None] | None:
        """Use up the claim. Return the connection's trigger, if it is urgent, and its new `due_at`.

        Returns None if this is not the latest claim on the connection.
        """
        use_up = (
            update(Connection)
            .filter_by(id=claim.connection_id, tenant_id=claim.tenant_id, due_at=claim.lease)
            .values(due_at=max(now(), claim.lease) + LEASE)
            .returning(Connection.due_for, URGENT, Connection.due_at)
        )
        with self._db.write(SYSTEM) as db:
            return db.execute(use_up).one_or_none()


def _due(queue: ColumnElement[bool]) -> Select[UUID, UUID]:
    is_due = queue, Connection.due_at <= now(), Connection.status.not_in(_AT_REST)
    return select(Connection.id, Connection.tenant_id).where(*is_due).order_by(Connection.due_at)


def _shares(db: Session, due: Select[UUID, UUID], most: int) -> tuple[list[_Row], list[_Row]]:
    """Return the due rows within their tenants' shares, and those beyond the shares.

    Reads a bounded number of rows, however many are due.
    """
    within: list[_Row] = []
    beyond: list[_Row] = []
    tenants: set[UUID] = set()
    for _ in range(_LOOKS):
        rows = db.execute(due.where(Connection.tenant_id.not_in(tenants)).limit(most * _ROWS)).all()
        numbers: Counter[UUID] = Counter()
        for row in rows:
            numbers[row.tenant_id] += 1
            in_share = numbers[row.tenant_id] <= max(1, most // _SHARE)
            (within if in_share else beyond).append(row)
        tenants.update(numbers)
        if len(rows) < most * _ROWS or len(within) >= most:
            break
    return within, beyond
