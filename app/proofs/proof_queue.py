"""The proof queue: claim due connections, a few at a time, and prove them in the background.

The queue is in the database. A claim sets `due_at` to the end of a lease, so a connection whose
claim is lost becomes due again when the lease expires. A claim is for a thread that is free.

There are two queues. The urgent queue is for first proofs, searches, stacks' messages and refused
sessions. The routine queue is for the scheduled proofs of proven roles. Tenants take turns: the one
with the fewest proofs under way comes first, so one tenant's thousands of roles do not delay the
proofs of another tenant. Of one tenant's, those that were never tried come first, and then those
that have been due longest.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
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
# Maximum number of queries for the candidates of a claim, and of rows that each reads. Each may
# return rows of one tenant only, and leaves out the tenants of the earlier ones. So seven tenants
# with long backlogs leave room for an eighth.
_LOOKS, _ROWS = 8, 128


class Claim(NamedTuple):
    """A claim on one connection to prove. `lease`: the `due_at` that this claim set."""

    tenant_id: UUID
    connection_id: UUID
    lease: datetime
    trigger: Trigger
    is_urgent: bool


@dataclass
class ProofQueue:
    """Claims connections that are due, and proves them.

    `_urgent` and `_routine` prove the connections of each queue, within its STS budget.
    """

    _db: Database
    interval: RoutineInterval
    _urgent: Verification
    _routine: Verification

    def claim(self, most: int, running: Iterable[Claim] = ()) -> list[Claim]:
        """Claim at most `most` urgent connections, beside the claims that are running.

        No other claim gets them during the lease.
        """
        untried = Connection.proof_id.is_(None)
        return self._claim((_ACTIVE & untried, _ACTIVE & ~untried), most, running)

    def claim_routine(self, most: int, running: Iterable[Claim] = ()) -> list[Claim]:
        """Claim at most `most` connections for a routine proof, as `claim` does."""
        return self._claim((IN_ROUTINE,), most, running)

    def _claim(
        self, queues: tuple[ColumnElement[bool], ...], most: int, running: Iterable[Claim]
    ) -> list[Claim]:
        """Claim connections of these queues. Of one tenant's, those of the first come first."""
        if not most:
            return []
        under_way = Counter(claim.tenant_id for claim in running)
        # So many tenants that `most` of them have no proof under way
        enough = most + len(under_way)
        with self._db.read() as db:  # most reads return nothing, and need no write
            rows = [row for queue in queues for row in _candidates(db, _due(queue), enough)]
        turns: list[tuple[int, UUID]] = []
        for row in rows:
            turns.append((under_way[row.tenant_id], row.id))
            under_way[row.tenant_id] += 1
        # `sorted` is stable: within a turn, the order of the queues and of `due_at` remains
        chosen = [row_id for _, row_id in sorted(turns, key=itemgetter(0))][:most]
        if not chosen:
            return []
        # Rows that a concurrent claim has locked are skipped, so claims do not wait for each other.
        due = _due(true()).where(Connection.id.in_(chosen))
        free = due.with_only_columns(Connection.id).with_for_update(skip_locked=True)
        lease = now() + LEASE
        take = (
            update(Connection)
            .where(Connection.id.in_(free))
            .values(due_at=lease)
            .returning(Connection.id, Connection.tenant_id, Connection.due_for, URGENT)
            .execution_options(synchronize_session=False)
        )
        with self._db.write(SYSTEM) as db:
            taken = sorted(db.execute(take), key=lambda row: chosen.index(row.id))
        return [Claim(row.tenant_id, row.id, lease, *row[2:]) for row in taken]

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
        """Prove the claim's connection. Returns False if it can't be proven any more."""
        verification = self._urgent if claim.is_urgent else self._routine
        principal, trigger = SystemPrincipal(WORKER, claim.tenant_id), claim.trigger
        try:
            verification.verify(principal, claim.tenant_id, claim.connection_id, trigger=trigger)
        except (NotFoundError, SuspendedError, ConflictError) as error:
            # An urgent connection in a closed account also waits for its next slot. The account
            # stays closed for long, and a tenant may have thousands of roles in it.
            if not claim.is_urgent or isinstance(error, AccountClosedError):
                slot = next_slot(claim.connection_id, now(), self.interval.current().seconds)
                own = update(Connection).filter_by(id=claim.connection_id, due_at=claim.lease)
                with self._db.write(SYSTEM) as db:
                    db.execute(own.values(due_at=slot))
            logger.info("proof.dropped", connection_id=str(claim.connection_id), why=error.code)
            return False
        return True


def _due(queue: ColumnElement[bool]) -> Select[UUID, UUID]:
    is_due = queue, Connection.due_at <= now(), Connection.status.not_in(_AT_REST)
    return select(Connection.id, Connection.tenant_id).where(*is_due).order_by(Connection.due_at)


def _candidates(db: Session, due: Select[UUID, UUID], enough: int) -> list[Row[UUID, UUID]]:
    """Return due rows of `enough` tenants, if there are as many.

    It reads a bounded number of rows, however many are due.
    """
    rows: list[Row[UUID, UUID]] = []
    for _ in range(_LOOKS):
        tenants = {row.tenant_id for row in rows}
        if len(tenants) >= enough:
            break
        more = db.execute(due.where(Connection.tenant_id.not_in(tenants)).limit(_ROWS)).all()
        rows += more
        if len(more) < _ROWS:
            break
    return rows
