"""The proof queue: connections that are due, claimed a few at a time and proven in the background.

The queue is in the database. A claim moves `due_at` ahead by a lease, so a lost claim is due again
when its lease is over. A claim is used once: it names the `due_at` that it set, and the first
process that begins it moves that.

Two queues run beside each other. Urgent: a first proof, a search, a stack's message, a refused
session. Connections that were never tried go first. Routine: the scheduled proofs of proven roles.
Each claim is shared out among tenants, so that one tenant's thousands of roles do not delay another
tenant's first or scheduled proof. Within a share the longest due go first.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, select, true, update

from app.audit.events import WORKER
from app.aws.sts import Sts
from app.clock import now
from app.errors import AccountClosedError, ConflictError, NotFoundError, SuspendedError
from app.health.checks import HealthFinding, ok, warning
from app.identity import SystemPrincipal
from app.limits.rates import Rates
from app.log import logger
from app.permissions.permission_sets import PermissionSets
from app.proofs.canary import Canary
from app.proofs.proof_interval import ProofInterval
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
from app.store.models.proof_schedule import next_slot

LEASE = timedelta(minutes=2)  # longer than a proof and its wait for the STS budget
_AT_REST = (ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED)
# Without a join: with one, a database may begin with the tenants instead of the index of due rows.
# A routine claim does not check the tenant, because it would read all of a suspended tenant's
# connections each time. Their slots pass when their claims are begun.
_ACTIVE = and_(
    URGENT, exists().where(Tenant.id == Connection.tenant_id, Tenant.status == TenantStatus.ACTIVE)
)
_QUEUES = {"urgent": _ACTIVE, "routine": IN_ROUTINE}
_SHARE = 8  # one tenant gets an eighth of a claim while others wait
# A quarter of a claim is kept for connections that were tried before. Otherwise they could wait
# without end.
_AGAIN = 4
_ROWS = 8  # times the size of a claim: the due rows that one look reads
# The first look may return one tenant's rows only. Each further look leaves out the tenants of
# earlier ones.
_LOOKS = 4

_Row = Row[UUID, UUID]  # of a connection's id and its tenant's


class Claim(NamedTuple):
    """A claim on one connection to prove. `lease`: the `due_at` that this claim set."""

    tenant_id: UUID
    connection_id: UUID
    lease: datetime


class ProofQueue:
    """Claims connections that are due, and proves them."""

    def __init__(
        self,
        db: Database,
        sts: Sts,
        rates: Rates,
        interval: ProofInterval,
        canary: Canary,
        *,
        sets: PermissionSets,
    ) -> None:
        self._db = db
        self.interval = interval
        self._urgent, self._routine = (
            Verification(db, sts.with_budget(budget), interval, canary, sets)
            for budget in (rates.background_call, rates.routine_call)
        )

    def claim(self, most: int) -> list[Claim]:
        """Claim at most so many urgent connections, the longest due first.

        No other claim gets them during the lease. Connections that were never tried go first. A
        tenant gets more than its share only if places stay free.
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
        """Claim at most so many connections that are due for a routine proof, as `claim` does."""
        with self._db.read() as db:
            within, beyond = _shares(db, _due(IN_ROUTINE), most)
        return self._lease((*within, *beyond), most)

    def _lease(self, rows: Iterable[_Row], most: int) -> list[Claim]:
        chosen = [row.id for row in dict.fromkeys(rows)][:most]
        if not chosen:
            return []
        lease = now() + LEASE
        with self._db.write(SYSTEM) as db:
            # A concurrent claim takes the rows that are not locked, without waiting.
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
        """Return how many connections are due: urgent ones, and those for a routine proof."""
        numbers = {}
        with self._db.read(long=True) as db:
            for name, queue in _QUEUES.items():
                due = _due(queue).order_by(None).with_only_columns(func.count())
                numbers[name] = db.scalar(due) or 0
        return numbers

    def oldest_due(self) -> datetime | None:
        """Return since when the longest due connection is due; None when none is due."""
        oldest: list[datetime | None] = []
        with self._db.read() as db:
            for queue in _QUEUES.values():
                oldest += db.scalars(_due(queue).with_only_columns(Connection.due_at).limit(1))
        return min(filter(None, oldest), default=None)

    def finding(self) -> HealthFinding:
        """Return the finding for readiness: how often each connection is proven."""
        interval = self.interval.current()
        summary = (
            f"Each of {interval.connections} connections is proven every {interval.seconds} s;"
            f" DEPUTY_REPROVE_EVERY is {interval.configured} s."
        )
        if interval.seconds > interval.configured:
            return warning(
                summary,
                "Raise DEPUTY_STS_BUDGET (routine proofs get half of it) or DEPUTY_REPROVE_EVERY.",
            )
        return ok(summary)

    def prove(self, claim: Claim) -> bool:
        """Prove the claim's connection.

        Returns False when the claim was used already, or the connection can't be proven any more.
        """
        row = self._use_up(claim)
        if row is None:
            return False
        trigger, status, lease = row
        urgent = trigger is not Trigger.SCHEDULED or status is ConnectionStatus.PENDING
        verification = self._urgent if urgent else self._routine
        principal = SystemPrincipal(WORKER, claim.tenant_id)
        try:
            verification.verify(principal, claim.tenant_id, claim.connection_id, trigger=trigger)
        except (NotFoundError, SuspendedError, ConflictError) as error:
            # A closed account stays closed for long, and a tenant may have thousands of roles in
            # it.
            if not urgent or isinstance(error, AccountClosedError):
                self._wait_for_next_slot(claim, lease)
            logger.info("proof.dropped", connection_id=str(claim.connection_id), why=error.code)
            return False
        return True

    def _wait_for_next_slot(self, claim: Claim, lease: datetime | None) -> None:
        slot = next_slot(claim.connection_id, now(), self.interval.current().every)
        own = Connection.id == claim.connection_id, Connection.due_at == lease
        with self._db.write(SYSTEM) as db:
            db.execute(update(Connection).where(*own).values(due_at=slot))

    def _use_up(self, claim: Claim) -> Row[Trigger, ConnectionStatus, datetime | None] | None:
        """Use up the claim, and return the reason for the proof, the status and the new lease.

        None if it is not the latest claim.
        """
        use_up = (
            update(Connection)
            .where(
                Connection.id == claim.connection_id,
                Connection.tenant_id == claim.tenant_id,
                Connection.due_at == claim.lease,
            )
            .values(due_at=max(now(), claim.lease) + LEASE)
            .returning(Connection.due_for, Connection.status, Connection.due_at)
            .execution_options(synchronize_session=False)
        )
        with self._db.write(SYSTEM) as db:
            return db.execute(use_up).one_or_none()


def _due(queue: ColumnElement[bool]) -> Select[UUID, UUID]:
    is_due = queue, Connection.due_at <= now(), Connection.status.not_in(_AT_REST)
    return select(Connection.id, Connection.tenant_id).where(*is_due).order_by(Connection.due_at)


def _shares(db: Session, due: Select[UUID, UUID], most: int) -> tuple[list[_Row], list[_Row]]:
    """Return rows within their tenants' shares, and rows beyond them.

    It reads a bounded number of rows, however many are due.
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
