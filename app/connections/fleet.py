"""Whether many roles refuse us at once. Then the mistake is probably ours, and breaks no connection.

What counts is each connection's latest attempt, among those that were tried lately.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import and_, case, distinct, func, or_, select
from sqlalchemy.orm import Session

from app.store.models import Connection, ConnectionStatus

ENOUGH = 10  # connections that were tried lately, from which more is concluded than from one
_REFUSING, _TENANTS = 5, 3


class RecentAttempts(NamedTuple):
    """How many connections were tried, how many of the proven ones refuse their own ID, and of how many tenants."""

    tried: int
    refusing: int
    tenants: int

    @property
    def many_refuse(self) -> bool:
        return self.refusing >= _REFUSING and self.tenants >= _TENANTS and 2 * self.refusing > self.tried


class ProofAges(NamedTuple):
    """How many connections are verified, how many of their proofs are past half their shelf life, and the oldest."""

    verified: int
    past_half: int
    oldest: datetime | None


def proof_ages(db: Session, half: datetime) -> ProofAges:
    """`half`: half a shelf life ago. Reads the rows of all verified connections."""
    counts = select(
        func.count(), func.count(case((Connection.verified_at < half, Connection.id))), func.min(Connection.verified_at)
    ).where(Connection.status == ConnectionStatus.VERIFIED)
    return ProofAges(*db.execute(counts).one())


def recent_attempts(db: Session, since: datetime, connection_id: UUID | None = None) -> RecentAttempts:
    """What was tried since then, and this connection, which refuses just now."""
    refuses = and_(Connection.refusing_since.is_not(None), Connection.verified_at.is_not(None))
    counts = select(
        func.count(),
        func.count(case((refuses, Connection.id))),
        func.count(distinct(case((refuses, Connection.tenant_id)))),
    ).where(or_(Connection.tried_at > since, Connection.id == connection_id))
    return RecentAttempts(*db.execute(counts).one())


def connections_to_sample(db: Session, since: datetime, tenant_id: UUID, most: int) -> list[tuple[UUID, UUID]]:
    """Verified connections of other tenants that were not tried since then: as many tenants as there are."""
    in_tenant = func.row_number().over(partition_by=Connection.tenant_id, order_by=Connection.due_at)
    untried = or_(Connection.tried_at.is_(None), Connection.tried_at <= since)
    wanted = Connection.status == ConnectionStatus.VERIFIED, Connection.tenant_id != tenant_id, untried
    query = select(Connection.tenant_id, Connection.id).where(*wanted).order_by(in_tenant, Connection.due_at)
    return [(row.tenant_id, row.id) for row in db.execute(query.limit(most))]
